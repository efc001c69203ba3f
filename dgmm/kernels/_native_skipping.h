/* The E-step of rows of which each is of few components.  Included by _native_kernel.h.

   A component whose log-density of a row is less than the row's largest by ``away`` = log(2 K / u), u the
   unit round-off, has a responsibility below u / 2 K: all of these together change neither the sum of
   e^L nor its logarithm by more than its rounding.  Such pairs of row and component are left out as soon
   as it is known of them:

   1. With a unit vector h, (h'C'd)^2 <= |C'd|^2 (Cauchy and Schwarz).  For each component one h is found
      that makes this large for the rows at hand: the leading eigenvector of C'PC, P their scatter about
      the mean, nearly.  D products tell of most pairs that they are out.
   2. C is upper triangular; so the first j features alone give the first j squares of |C'd|^2, at j^2 / 2
      products, and what is left out is never below 0.  Rows go on, WIDE squares at a time, so long as they
      are not out.

   The log-density of a t distribution falls as |C'd|^2 grows, too, so both hold of it; but slowly, so that of
   many more rows it is not out.  What it adds to the sums is bounded all the same, as r E[u] |C'd|^2 < r (nu + D).

   The largest so far is all that step 1 and 2 know of a row.  So components come in the order of how many
   rows they had: the right one comes soon.

   Rows lie one after the other here, padded with zeros, and a vector holds consecutive features of one:
   so the rows that go on need not be neighbours. */

#define SPAN TERMS(1, 2)
#define WIDE (SPAN * LANES) /* the squares that are added between two looks */
#define GROUP (BYTES == 64 ? 8 : 4)
#define FILTERS 4

typedef REAL FN(Loose) __attribute__((vector_size(BYTES), aligned(sizeof(REAL))));
#define ANYWHERE(p, i) (*(FN(Loose) *)((p) + (i)))

/* What is kept from tile to tile, and a tile's arrays; ``stride`` is a row's length with its padding. */
typedef struct {
    ptrdiff_t n_features, all, stride, tile, panel;
    REAL *panels, *means, *aims;                /* (all, panel), (all, stride), (all, n_features): C by WIDE columns, mu, C h */
    REAL *across, *rows, *moved, *shares;       /* (n_features, tile), (tile, stride) each: x twice, d, and r d */
    REAL *seen, *top, *low, *sum, *lift, *w;    /* (FILTERS, tile), (tile) each */
    REAL *squares, *L;                          /* (tile), (all * tile): of the pairs that are left, */
    int32_t *of, *list, *best;                  /* (all * tile): and their rows; (tile), (tile) */
    REAL *U;                                    /* (all * tile): of these pairs, where components are t distributions: log(1 + d / nu) */
    ptrdiff_t *begins, *order, *won;            /* (all + 1), (all), (all) */
    ptrdiff_t work;                             /* vectors of products that a tile took */
} FN(Spare);

INLINE REAL FN(across)(Vector v) {
#if BYTES == 64
    typedef REAL Half __attribute__((vector_size(32)));
    typedef REAL Quarter __attribute__((vector_size(16)));
    const union { Vector whole; Half half[2]; } a = {v};
    const union { Half whole; Quarter half[2]; } b = {a.half[0] + a.half[1]};
    const Quarter c = b.half[0] + b.half[1];
#elif BYTES == 32
    typedef REAL Quarter __attribute__((vector_size(16)));
    const union { Vector whole; Quarter half[2]; } a = {v};
    const Quarter c = a.half[0] + a.half[1];
#else
    const Vector c = v;
#endif
    return TERMS((c[0] + c[1 % TERMS(4, 2)]) + (c[2 % TERMS(4, 2)] + c[3 % TERMS(4, 2)]), c[0] + c[1]);
}

/* squares[g] += those of WIDE columns of C, ``depth`` of whose rows are not 0, for each of GROUP rows.

   It is a function of its own: among others the compiler keeps one of its sums in memory, not in a register,
   and each product waits for that. */
TARGET static __attribute__((noinline)) void FN(more_squares)(ptrdiff_t depth, const REAL *panel, const REAL *const *d, REAL *const *squares) {
    Vector y[GROUP][SPAN];
    for (int g = 0; g < GROUP; g++)
        for (int s = 0; s < SPAN; s++) y[g][s] = FN(fill)(0);
    for (ptrdiff_t i = 0; i < depth; i++) {
        Vector c[SPAN];
        for (int s = 0; s < SPAN; s++) c[s] = AT(panel, i * WIDE + s * LANES);
#pragma GCC unroll 8
        for (int g = 0; g < GROUP; g++)
#pragma GCC unroll 2
            for (int s = 0; s < SPAN; s++) y[g][s] += c[s] * d[g][i];
    }
#pragma GCC unroll 8
    for (int g = 0; g < GROUP; g++) {
        Vector square = y[g][0] * y[g][0];
        for (int s = 1; s < SPAN; s++) square += y[g][s] * y[g][s];
        *squares[g] += FN(across)(square);
    }
}

/* out[c][row] = h'C'd of FILTERS components. */
INLINE void FN(filter)(ptrdiff_t n_features, ptrdiff_t rows, const REAL *x, const REAL *const *means, const REAL *const *aims,
                       REAL *out, ptrdiff_t tile) {
    for (ptrdiff_t row = 0; row < rows; row += 2 * LANES) {
        Vector y[FILTERS][2];
        for (int c = 0; c < FILTERS; c++) y[c][0] = y[c][1] = FN(fill)(0);
        for (ptrdiff_t i = 0; i < n_features; i++) {
            const Vector one = AT(x, i * rows + row), two = AT(x, i * rows + row + LANES);
#pragma GCC unroll 4
            for (int c = 0; c < FILTERS; c++) {
                const REAL mean = means[c][i], aim = aims[c][i];
                y[c][0] += aim * (one - mean), y[c][1] += aim * (two - mean);
            }
        }
        for (int c = 0; c < FILTERS; c++) AT(out, c * tile + row) = y[c][0], AT(out, c * tile + row + LANES) = y[c][1];
    }
}

/* For a t distribution of the constants ``tail``: U = log(1 + d / nu) of squares d, and the log-densities L. */
INLINE void FN(heavy)(const double *tail, ptrdiff_t count, const REAL *squares, REAL *L, REAL *U) {
    const REAL inverse = (REAL)tail[INVERSE], unit = (REAL)tail[UNIT], half = (REAL)tail[HALF];
    for (ptrdiff_t e = 0; e < count; e += LANES) {
        const Vector away = FN(logarithm)(1 + inverse * ANYWHERE(squares, e));
        ANYWHERE(U, e) = away, ANYWHERE(L, e) = unit - half * away;
    }
}

/* The log-densities of the rows of ``list`` that are not out, put at ``at`` of what is left; how many.

   ``tail`` is NULL where the component is normal. */
INLINE ptrdiff_t FN(of_component)(FN(Spare) *z, ptrdiff_t k, ptrdiff_t count, REAL constant, const double *tail, REAL away, ptrdiff_t at) {
    const ptrdiff_t stride = z->stride;
    const REAL *mean = z->means + k * stride, *panel = z->panels + k * z->panel, half = 0.5;
    int32_t *list = z->list, *place = z->of + at; /* rows, and where their d are: in the place of what is made */
    REAL *squares = z->squares, *L = z->L + at, *U = z->U + at;
    for (ptrdiff_t e = 0; e < count; e++) {
        const REAL *x = z->rows + list[e] * stride;
        for (ptrdiff_t i = 0; i < stride; i += LANES) AT(z->moved, e * stride + i) = AT(x, i) - AT(mean, i);
        place[e] = (int32_t)e, squares[e] = 0;
    }
    for (ptrdiff_t from = 0; from < z->n_features && count; from += WIDE) {
        const ptrdiff_t depth = from + WIDE < z->n_features ? from + WIDE : z->n_features;
        for (ptrdiff_t e = 0; e < count; e += GROUP) {
            const REAL *d[GROUP];
            REAL *square[GROUP], spare = 0;
            for (int g = 0; g < GROUP; g++) {
                const ptrdiff_t own = e + g < count ? e + g : count - 1;
                d[g] = z->moved + place[own] * stride, square[g] = e + g < count ? squares + own : &spare;
            }
            FN(more_squares)(depth, panel, d, square);
        }
        z->work += (count + GROUP - 1) / GROUP * GROUP * (depth * SPAN + 8);
        panel += depth * WIDE;
        ptrdiff_t left = 0;
        if (tail) FN(heavy)(tail, count, squares, L, U);
        for (ptrdiff_t e = 0; e < count; e++) {
            const int32_t row = list[e], own = place[e];
            const REAL square = squares[e], value = tail ? L[e] : constant - half * square;
            list[left] = row, place[left] = own, squares[left] = square;
            if (tail) L[left] = value, U[left] = U[e];
            left += value >= z->low[row];
        }
        count = left;
    }
    for (ptrdiff_t e = 0; e < count; e++) {
        const int32_t row = list[e];
        const REAL value = tail ? L[e] : constant - half * squares[e];
        L[e] = value, z->of[at + e] = row;
        if (value > z->top[row] || (value == z->top[row] && k < z->best[row]))
            z->top[row] = value, z->low[row] = value - away, z->best[row] = (int32_t)k;
    }
    return count;
}

/* The pairs that matter of components ``first`` to ``last`` and the tile's rows: L and rows from begins[o]
   to begins[o + 1] are of component order[o].  What pads the last rows is of none. */
TARGET static void FN(find)(FN(Spare) *z, const REAL *constants, const double *tails, ptrdiff_t first, ptrdiff_t last, ptrdiff_t here,
                            ptrdiff_t padded, REAL away) {
    const REAL half = 0.5, slack = 0.5; /* for the rounding of step 1 */
    ptrdiff_t at = z->begins[first];
    for (ptrdiff_t row = 0; row < here; row++) z->top[row] = z->low[row] = -(REAL)INFINITY, z->best[row] = (int32_t)last;
    for (ptrdiff_t o = first; o < last; o += FILTERS) {
        const REAL *means[FILTERS], *aims[FILTERS];
        for (ptrdiff_t c = 0; c < FILTERS; c++) {
            const ptrdiff_t k = z->order[o + c < last ? o + c : last - 1];
            means[c] = z->means + k * z->stride, aims[c] = z->aims + k * z->n_features;
        }
        FN(filter)(z->n_features, padded, z->across, means, aims, z->seen, z->tile);
        for (ptrdiff_t c = 0; c < FILTERS && o + c < last; c++) {
            const ptrdiff_t k = z->order[o + c];
            const REAL most = constants[k] + slack;
            REAL *seen = z->seen + c * z->tile;
            ptrdiff_t count = 0;
            z->begins[o + c] = at;
            if (tails) {
                const double *tail = tails + k * TAILS;
                for (ptrdiff_t row = 0; row < here; row += LANES) AT(z->squares, row) = AT(seen, row) * AT(seen, row);
                FN(heavy)(tail, here, z->squares, seen, z->squares);
                for (ptrdiff_t row = 0; row < here; row++) {
                    z->list[count] = (int32_t)row;
                    count += seen[row] + slack >= z->low[row];
                }
                at += FN(of_component)(z, k, count, constants[k], tail, away, at);
                continue;
            }
            for (ptrdiff_t row = 0; row < here; row++) {
                z->list[count] = (int32_t)row;
                count += most - half * seen[row] * seen[row] >= z->low[row];
            }
            at += FN(of_component)(z, k, count, constants[k], NULL, away, at);
        }
    }
    z->begins[last] = at;
    for (ptrdiff_t row = 0; row < here; row++)
        if (z->best[row] < last) z->won[z->best[row]]++;
    z->work += (last - first) * padded * (2 * z->n_features + (tails ? 40 : 16)) / LANES;
}

/* log(2 K / u): below the largest log-density of a row by more, a component does not count. */
TARGET static REAL FN(away)(ptrdiff_t components) {
    return (REAL)(log(2.0 * (double)components) + TERMS(24, 53) * 0.69314718055994531);
}

/* L of what is left become e^(L - top), ``sum`` their sums, and ``lift`` those with ``boost``. */
TARGET static void FN(exponentials)(FN(Spare) *z, ptrdiff_t first, ptrdiff_t last, ptrdiff_t here, ptrdiff_t padded, const REAL *boost) {
    const ptrdiff_t from = z->begins[first], to = z->begins[last];
    for (ptrdiff_t row = 0; row < padded; row++) z->sum[row] = z->lift[row] = row < here ? 0 : 1;
    for (ptrdiff_t row = here; row < padded; row++) z->top[row] = 0;
    for (ptrdiff_t e = from; e < to; e++) z->L[e] -= z->top[z->of[e]];
    for (ptrdiff_t e = from; e < to; e += LANES) ANYWHERE(z->L, e) = FN(exponential)(ANYWHERE(z->L, e)); /* and of what is not there */
    for (ptrdiff_t o = first; o < last; o++) {
        const REAL up = boost[z->order[o]];
        for (ptrdiff_t e = z->begins[o]; e < z->begins[o + 1]; e++)
            z->sum[z->of[e]] += z->L[e], z->lift[z->of[e]] += up * z->L[e];
    }
}

/* From ``sum`` and ``lift`` what ``normalise`` makes; ``sum`` becomes w / sum. */
TARGET static void FN(share)(FN(Spare) *z, ptrdiff_t padded, double most, double *objective, double *plain) {
    double all = 0, lifted = 0, weights = 0;
    for (ptrdiff_t row = 0; row < padded; row += LANES) {
        const Vector sum = AT(z->sum, row), weight = AT(z->w, row);
        all += FN(total)(weight * (AT(z->top, row) + FN(logarithm)(sum)));
        lifted += FN(total)(weight * FN(logarithm)(AT(z->lift, row) / sum));
        weights += FN(total)(weight);
        AT(z->sum, row) = weight / sum;
    }
    *objective += all;
    *plain += all + lifted + most * weights;
}

/* sums[...] += the piece of sum r d d' of features i to i + GROUP and ``width`` vectors from j on. */
INLINE void FN(piece)(ptrdiff_t count, ptrdiff_t n_features, ptrdiff_t stride, ptrdiff_t i, ptrdiff_t j, int width, const REAL *a, const REAL *d,
                      double *sums) {
    Vector sum[GROUP][2];
    for (int r = 0; r < GROUP; r++)
        for (int c = 0; c < width; c++) sum[r][c] = FN(fill)(0);
    for (ptrdiff_t e = 0; e < count; e++, a += stride, d += stride) {
        Vector right[2];
        for (int c = 0; c < width; c++) right[c] = AT(d, j + c * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < GROUP; r++)
#pragma GCC unroll 2
            for (int c = 0; c < width; c++) sum[r][c] += right[c] * a[i + r];
    }
    for (int r = 0; r < GROUP && i + r < n_features; r++) {
        const ptrdiff_t y = i + r;
        double *to = sums + y * n_features - y * (y - 1) / 2 - y;
        for (int c = 0; c < width; c++) {
            const ptrdiff_t start = j + c * LANES;
            if (start >= y && start + LANES <= n_features)
                for (int lane = 0; lane < LANES; lane++) to[start + lane] += (double)sum[r][c][lane];
            else
                for (ptrdiff_t lane = start < y ? y - start : 0; lane < LANES && start + lane < n_features; lane++)
                    to[start + lane] += (double)sum[r][c][lane];
        }
    }
}

/* Add sum r T(x - mu) over the rows that are left to the sums of one component; where it is a t distribution,
   r times E[u], and what ``weigh`` adds to ``latent``. */
TARGET static void FN(add_few)(FN(Spare) *z, ptrdiff_t o, REAL least, const double *tail, double *latent, double *sums) {
    const ptrdiff_t stride = z->stride, n_features = z->n_features;
    const REAL *mean = z->means + z->order[o] * stride;
    REAL *d = z->moved, *a = z->shares;
    ptrdiff_t count = 0;
    double rows = 0;
    const REAL scale = tail ? (REAL)exp(tail[LOG_SCALE]) : 0;
    REAL *u = z->squares - z->begins[o];
    for (ptrdiff_t e = z->begins[o]; tail && e < z->begins[o + 1]; e += LANES)
        ANYWHERE(u, e) = scale * FN(exponential)(-ANYWHERE(z->U, e));
    for (ptrdiff_t e = z->begins[o]; e < z->begins[o + 1]; e++) {
        const ptrdiff_t row = z->of[e];
        if (z->L[e] < least) continue;
        const REAL *x = z->rows + row * stride;
        REAL r = z->L[e] * z->sum[row];
        if (tail) {
            latent[0] += (double)r, latent[1] += (double)r * (tail[LOG_SCALE] - (double)z->U[e] + tail[OFFSET] - (double)u[e]);
            r *= u[e];
        }
        rows += (double)r;
        for (ptrdiff_t i = 0; i < stride; i += LANES) {
            const Vector moved = AT(x, i) - AT(mean, i);
            AT(d, count * stride + i) = moved, AT(a, count * stride + i) = r * moved;
        }
        count++;
    }
    sums[0] += rows;
    for (ptrdiff_t i = 0; i < n_features; i += LANES) {
        Vector sum = FN(fill)(0);
        for (ptrdiff_t e = 0; e < count; e++) sum += AT(a, e * stride + i);
        for (ptrdiff_t lane = 0; lane < LANES && i + lane < n_features; lane++) sums[1 + i + lane] += (double)sum[lane];
    }
    for (ptrdiff_t i = 0; i < n_features; i += GROUP)
        for (ptrdiff_t j = i / LANES * LANES; j < n_features; j += 2 * LANES)
            if (j + LANES < stride)
                FN(piece)(count, n_features, stride, i, j, 2, a, d, sums + 1 + n_features);
            else
                FN(piece)(count, n_features, stride, i, j, 1, a, d, sums + 1 + n_features);
    z->work += count * (n_features * (n_features + GROUP + LANES) / 2 + 5 * stride) / LANES + 4 * n_features * n_features / LANES;
}

/* C h for each component: some steps of power iteration for the rows of the tile. */
TARGET static void FN(aim)(FN(Spare) *z, const Problem *p, ptrdiff_t here) {
    const ptrdiff_t D = z->n_features, stride = z->stride;
    REAL *scatter = z->moved, *centre = z->shares, *t = centre + stride, *s = t + stride, *h = s + stride;
    for (ptrdiff_t i = 0; i < stride; i++) {
        REAL sum = 0;
        for (ptrdiff_t row = 0; row < here; row++) sum += z->rows[row * stride + i];
        centre[i] = sum / (REAL)here;
    }
    for (ptrdiff_t i = 0; i < D; i++) {
        for (ptrdiff_t j = 0; j < stride; j += LANES) AT(scatter, i * stride + j) = FN(fill)(0);
        for (ptrdiff_t row = 0; row < here; row++) {
            const REAL *x = z->rows + row * stride, left = (x[i] - centre[i]) / (REAL)here;
            for (ptrdiff_t j = 0; j < stride; j += LANES) AT(scatter, i * stride + j) += left * (AT(x, j) - AT(centre, j));
        }
    }
    for (ptrdiff_t k = 0; k < z->all; k++) {
        const REAL *factor = (const REAL *)p->precisions_cholesky + k * D * D, *mean = z->means + k * stride;
        REAL *aim = z->aims + k * D;
        for (ptrdiff_t i = 0; i < stride; i++) h[i] = i < D;
        for (int step = 0; step < 4; step++) { /* t = C h, s = P t, h = C's */
            REAL along = 0, square = 0;
            for (ptrdiff_t i = 0; i < D; i++) {
                Vector sum = FN(fill)(0);
                ptrdiff_t j = i;
                for (; j + LANES <= D; j += LANES) sum += ANYWHERE(factor, i * D + j) * ANYWHERE(h, j);
                REAL rest = FN(across)(sum);
                for (; j < D; j++) rest += factor[i * D + j] * h[j];
                t[i] = rest;
                along += rest * (centre[i] - mean[i]);
            }
            for (ptrdiff_t j = 0; j < stride; j += LANES) AT(s, j) = along * (AT(centre, j) - AT(mean, j)), AT(h, j) = FN(fill)(0);
            for (ptrdiff_t i = 0; i < D; i++)
                for (ptrdiff_t j = 0; j < stride; j += LANES) AT(s, j) += t[i] * AT(scatter, i * stride + j);
            for (ptrdiff_t i = 0; i < D; i++) {
                ptrdiff_t j = i;
                for (; j + LANES <= D; j += LANES) ANYWHERE(h, j) += s[i] * ANYWHERE(factor, i * D + j);
                for (; j < D; j++) h[j] += s[i] * factor[i * D + j];
            }
            for (ptrdiff_t i = 0; i < D; i++) square += h[i] * h[i];
            const REAL scale = square > 0 && square < TERMS(1e38f, 1e300) ? 1 / (REAL)sqrt((double)square) : 0;
            for (ptrdiff_t i = 0; i < D; i++) h[i] *= scale;
        }
        for (ptrdiff_t i = 0; i < D; i++) {
            REAL sum = 0;
            for (ptrdiff_t j = i; j < D; j++) sum += factor[i * D + j] * h[j];
            aim[i] = sum;
        }
    }
}

/* The bytes of a Spare's arrays, or with ``space`` these arrays. */
TARGET static size_t FN(furnish)(FN(Spare) *z, const Problem *p, ptrdiff_t all, char *space) {
    const ptrdiff_t D = p->n_features;
    z->n_features = D, z->all = all, z->stride = (D + WIDE - 1) / WIDE * WIDE, z->panel = 0;
    for (ptrdiff_t from = 0; from < D; from += WIDE) z->panel += (from + WIDE < D ? from + WIDE : D) * WIDE;
    z->tile = SKIPPING_BYTES / (ptrdiff_t)sizeof(REAL) / (D + 3 * z->stride) / GRAIN * GRAIN;
    if (z->tile < SMALLEST_SKIPPING_TILE) z->tile = SMALLEST_SKIPPING_TILE;
    if (z->tile > LARGEST_TILE) z->tile = LARGEST_TILE;
    if (z->tile * sizeof(REAL) % 1024 == 0) z->tile -= GRAIN;
    const ptrdiff_t tile = z->tile, room = tile * z->stride, most = tile > D ? tile : D;
    size_t used = 0;
#define ROOM(what, type, count)                       \
    if (space) z->what = (type *)(space + used);      \
    used += ((size_t)(count) * sizeof(type) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    ROOM(panels, REAL, all * z->panel) ROOM(means, REAL, all * z->stride) ROOM(aims, REAL, all * D)
    ROOM(across, REAL, D * tile) ROOM(rows, REAL, room) ROOM(moved, REAL, most * z->stride) ROOM(shares, REAL, room)
    ROOM(seen, REAL, FILTERS * tile) ROOM(top, REAL, tile) ROOM(low, REAL, tile) ROOM(sum, REAL, tile) ROOM(lift, REAL, tile)
    ROOM(w, REAL, tile) ROOM(squares, REAL, tile) ROOM(L, REAL, all * tile + LANES) ROOM(of, int32_t, (all + 1) * tile)
    ROOM(list, int32_t, tile) ROOM(best, int32_t, tile) ROOM(begins, ptrdiff_t, all + 1) ROOM(order, ptrdiff_t, all) ROOM(won, ptrdiff_t, all)
    ROOM(U, REAL, p->tails ? all * tile + LANES : 0)
#undef ROOM
    return used;
}

/* Factors by WIDE columns, and means with zeros after them. */
TARGET static void FN(pack)(FN(Spare) *z, const Problem *p) {
    const ptrdiff_t D = z->n_features;
    for (ptrdiff_t k = 0; k < z->all; k++) {
        const REAL *factor = (const REAL *)p->precisions_cholesky + k * D * D, *mean = (const REAL *)p->means + k * D;
        REAL *to = z->panels + k * z->panel;
        for (ptrdiff_t i = 0; i < z->stride; i++) z->means[k * z->stride + i] = i < D ? mean[i] : 0;
        for (ptrdiff_t from = 0; from < D; from += WIDE)
            for (ptrdiff_t i = 0; i < D && i < from + WIDE; i++)
                for (ptrdiff_t j = from; j < from + WIDE; j++) *to++ = j < D && i <= j ? factor[i * D + j] : 0;
    }
}

/* Components of each mixture in the order of how many rows are theirs. */
TARGET static void FN(sort)(FN(Spare) *z, const Problem *p) {
    for (ptrdiff_t mixture = 0, k = 0; mixture < p->mixtures; k = p->ends[mixture++])
        for (ptrdiff_t o = k + 1; o < p->ends[mixture]; o++) {
            const ptrdiff_t own = z->order[o];
            ptrdiff_t to = o;
            for (; to > k && (z->won[z->order[to - 1]] < z->won[own] || (z->won[z->order[to - 1]] == z->won[own] && z->order[to - 1] > own)); to--)
                z->order[to] = z->order[to - 1];
            z->order[to] = own;
        }
}

/* The rows from ``start`` to ``start`` + here, in the frame: across, and one after the other. */
TARGET static void FN(take_rows)(FN(Spare) *z, const Problem *p, ptrdiff_t start, ptrdiff_t here, ptrdiff_t padded) {
    const ptrdiff_t n_features = p->n_features;
    REAL *x = z->across, *w = z->w;
    for (ptrdiff_t row = 0; row < padded; row++) w[row] = row >= here ? 0 : p->weights ? (REAL)p->weights[start + row] : 1;
    if (p->single_rows) ENTER(float) else ENTER(double)
    for (ptrdiff_t row = 0; p->weights && row < here; row++)
        if (w[row] == 0)
            for (ptrdiff_t i = 0; i < n_features; i++) x[i * padded + row] = 0;
    for (ptrdiff_t row = 0; row < here; row++) {
        REAL *to = z->rows + row * z->stride;
        for (ptrdiff_t i = 0; i < n_features; i++) to[i] = x[i * padded + row];
        for (ptrdiff_t i = n_features; i < z->stride; i++) to[i] = 0;
    }
}

/* Whether the work of the last tile was less than what dense tiles take for ``share`` of an E-step and its sums. */
static int FN(pays)(const FN(Spare) *z, ptrdiff_t rows, double share) {
    const double pair = (double)(z->n_features * (z->n_features + 5) + 40) / (double)LANES;
    return (double)z->work < PAYS * share * pair * (double)(rows * z->all);
}

/* The next tile, from ``start`` on; how many rows it has. */
TARGET static ptrdiff_t FN(next_tile)(FN(Spare) *z, const Problem *p, ptrdiff_t start, ptrdiff_t first) {
    const ptrdiff_t tile = start > first || z->tile < FIRST_ROWS ? z->tile : FIRST_ROWS; /* the first is a trial */
    const ptrdiff_t here = p->rows - start < tile ? p->rows - start : tile;
    if (start == first) {
        for (ptrdiff_t k = 0; k < z->all; k++) z->order[k] = k, z->won[k] = 0;
        FN(pack)(z, p);
    }
    FN(take_rows)(z, p, start, here, (here + GRAIN - 1) / GRAIN * GRAIN);
    if (start == first) FN(aim)(z, p, here);
    FN(sort)(z, p);
    z->begins[0] = 0, z->work = 0;
    return here;
}

/* The statistics of rows from ``first`` on, so long as it pays; the first row that is left. */
TARGET static ptrdiff_t FN(skipping)(FN(Spare) *z, const Problem *p, ptrdiff_t first, const REAL *boost) {
    ptrdiff_t here = 0;
    for (ptrdiff_t start = first; start < p->rows; start += here) {
        here = FN(next_tile)(z, p, start, first);
        const ptrdiff_t padded = (here + GRAIN - 1) / GRAIN * GRAIN;
        for (ptrdiff_t mixture = 0, k = 0; mixture < p->mixtures; k = p->ends[mixture++]) {
            const ptrdiff_t last = p->ends[mixture];
            const REAL least = TERMS(2.98023223876953125e-8f, 5.5511151231257827e-17) / (REAL)(last - k);
            FN(find)(z, p->constants, p->tails, k, last, here, padded, FN(away)(last - k));
            FN(exponentials)(z, k, last, here, padded, boost);
            FN(share)(z, padded, p->most[mixture], p->objective + mixture, p->plain + mixture);
            for (ptrdiff_t o = k; o < last; o++) {
                const ptrdiff_t own = z->order[o];
                FN(add_few)(z, o, least, p->tails ? p->tails + own * TAILS : NULL, p->tails ? p->latent + 2 * own : NULL, p->sums + own * p->width);
            }
        }
        if (!FN(pays)(z, here, p->tails ? PAYS_HEAVY(p->n_features) : 1)) return start + here;
    }
    return p->rows;
}

/* Whether less than a ``share`` of the responsibilities L of a tile's rows (all, padded), times w, matter. */
TARGET static int FN(few)(ptrdiff_t all, ptrdiff_t padded, ptrdiff_t here, const REAL *L, const REAL *w, double share) {
    const REAL least = TERMS(2.98023223876953125e-8f, 5.5511151231257827e-17) / (REAL)all;
    ptrdiff_t count = 0;
    for (ptrdiff_t k = 0; k < all; k++)
        for (ptrdiff_t row = 0; row < here; row++) count += L[k * padded + row] > least * w[row];
    return (double)count < share * (double)(all * here);
}

/* Whether rows may be of few components, by the numbers of these and of features. */
static int FN(may_skip)(const Problem *p, ptrdiff_t tile) {
    const ptrdiff_t all = p->ends[p->mixtures - 1];
    return p->skips && p->structure == FULL && p->n_features >= FEWEST_FEATURES && all >= FEWEST_COMPONENTS * p->mixtures
        && p->rows >= tile + FEWEST_ROWS;
}
