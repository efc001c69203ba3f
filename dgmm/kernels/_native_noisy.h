/* The E-step of rows with known errors, for one kind of vector; included as _native_incomplete.h is, in
   double precision only.

   A vector holds one number of several rows of a tile.  With T = S + N, of a component and a row, and
   d = x - mu, what is factored is

     T = L D L',   z = L^-1 d,   z' D^-1 z the squared distance,   u = T^-1 d = L'^-1 D^-1 z.

   A value that is missing has 1 in T, and 0 beside it and in d.  A component is factored for those rows
   that it may have a share of, as a bound on its density tells, picked together; then once more, and
   inverted, for those that it has a share of.

   The bound costs far less.  With M = S + N_0, for some noise N_0 about as large as that of most rows, and
   a = M^-1 d, the squared distance is (a'd)^2 / (a'd + a'(N - N_0)a) at least, as for any a it is
   (a'd)^2 / a'Ta.  For variances N, and s below S, log |T| is convex in log(N_i + s_i), as |T| is a sum of
   products of these with numbers that are not negative; so it is not below its tangent at N_0, whose
   slopes are (N_0i + s_i) (M^-1)_ii.  Both miss by what is quadratic in N - N_0. */

#define Vector FN(Vector)
#define Integer FN(Integer)
#define LANES ((ptrdiff_t)(BYTES / sizeof(double)))
#define INLINE static inline __attribute__((always_inline)) TARGET
#define AT(p, i) (*(Vector *)((p) + (i)))

/* A product of what must be positive: 2^exponent times a mantissa from 1 to 2, or NaN. */
typedef struct {
    Vector mantissa;
    Integer exponent, wrong;
} FN(Product);

INLINE FN(Product) FN(one)(void) {
    FN(Product) one = {FN(fill)(1), (Integer){0}, (Integer){0}};
    return one;
}

INLINE void FN(multiply)(FN(Product) *product, Vector value) {
    Integer bits = (Integer)(product->mantissa * value);
    product->wrong |= ~(value > 0);
    product->exponent += (bits >> 52) - 1023;
    product->mantissa = (Vector)((bits & (((int64_t)1 << 52) - 1)) | ((int64_t)1023 << 52));
}

INLINE Vector FN(log_product)(FN(Product) product) {
    Vector log = FN(logarithm)(product.mantissa);
    log += __builtin_convertvector(product.exponent, Vector) * 0.69314718055994530942;
    return (Vector)((Integer)log | product.wrong);
}

/* What a component says of LANES rows: of those from ``at`` on among the ``rows`` that the arrays hold. */
typedef struct {
    ptrdiff_t size, rows, at;
    int pairs, whole;
    const double *x, *observed, *noise, *mean, *covariance;
} FN(Told);

/* In ``size`` (D, or more so that it is a multiple of SIDE), matrices are in blocks of SIDE x SIDE: those
   of one row, or one column, of blocks lie one after another, and each is SIDE vectors for one of its columns,
   or rows.  A panel is such a row or column. */
typedef double FN(Loose) __attribute__((vector_size(BYTES), aligned(8), may_alias)); /* where rows do not begin a vector */
#define OF(p, i) (*(const FN(Loose) *)((p) + (i)))
#define SIDE 4
#define HEIGHT (BYTES == 64 ? 4 : 2) /* of what stays in registers */

/* A block less the sum over k of left_k right_k'. */
INLINE void FN(noisy_products)(ptrdiff_t first, ptrdiff_t end, const Vector *left, const Vector *right, Vector (*block)[SIDE]) {
#pragma GCC unroll 2
    for (int top = 0; top < SIDE; top += HEIGHT) {
        Vector sum[HEIGHT][SIDE];
#pragma GCC unroll 4
        for (int r = 0; r < HEIGHT; r++)
#pragma GCC unroll 4
            for (int c = 0; c < SIDE; c++) sum[r][c] = block[top + r][c];
        for (ptrdiff_t k = first; k < end; k++) {
            const Vector *own = left + k * SIDE + top, *other = right + k * SIDE;
#pragma GCC unroll 4
            for (int r = 0; r < HEIGHT; r++)
#pragma GCC unroll 4
                for (int c = 0; c < SIDE; c++) sum[r][c] -= own[r] * other[c];
        }
#pragma GCC unroll 4
        for (int r = 0; r < HEIGHT; r++)
#pragma GCC unroll 4
            for (int c = 0; c < SIDE; c++) block[top + r][c] = sum[r][c];
    }
}

/* A block of T, from row i and column j on, i >= j. */
INLINE void FN(noisy_block)(const FN(Told) *told, ptrdiff_t i, ptrdiff_t j, Vector (*block)[SIDE]) {
    ptrdiff_t size = told->size, rows = told->rows, at = told->at;
#pragma GCC unroll 4
    for (int r = 0; r < SIDE; r++)
#pragma GCC unroll 4
        for (int c = 0; c < SIDE; c++) block[r][c] = FN(fill)(told->covariance[(i + r) * size + j + c]);
    if (told->pairs)
        for (int c = 0; c < SIDE; c++) {
            ptrdiff_t column = j + c, place = column * size - column * (column - 1) / 2 - column + i;
            for (int r = i == j ? c : 0; r < SIDE; r++) block[r][c] += OF(told->noise, (place + r) * rows + at);
        }
    else if (i == j)
#pragma GCC unroll 4
        for (int r = 0; r < SIDE; r++) block[r][r] += OF(told->noise, (i + r) * rows + at);
    if (told->whole) return;
    for (int r = 0; r < SIDE; r++) {
        Vector seen = OF(told->observed, (i + r) * rows + at);
        for (int c = 0; c < SIDE; c++) block[r][c] *= seen * OF(told->observed, (j + c) * rows + at);
        if (i == j) block[r][r] += 1 - seen;
    }
}

/* The columns of row ``i`` of L before the block of the diagonal, transposed. */
INLINE void FN(noisy_scaled)(ptrdiff_t first, ptrdiff_t end, const Vector *panel, const Vector *inverse, Vector *scaled) {
    for (ptrdiff_t k = first; k < end; k++)
#pragma GCC unroll 4
        for (int r = 0; r < SIDE; r++) scaled[k * SIDE + r] = panel[k * SIDE + r] * inverse[k];
}

/* Factors T: L D to ``l``, in rows of blocks, and D^-1 to ``inverse``; z to ``z``.  Returns
   log |T| + z' D^-1 z. */
INLINE Vector FN(noisy_factor)(const FN(Told) *told, Vector *l, Vector *inverse, Vector *z, Vector *scaled) {
    FN(Product) det = FN(one)();
    Vector square = FN(fill)(0);
    ptrdiff_t size = told->size;
    for (ptrdiff_t j = 0; j < size; j += SIDE) {
        Vector *own = l + j * size, block[SIDE][SIDE], within[SIDE][SIDE];
        FN(noisy_scaled)(0, j, own, inverse, scaled);
        FN(noisy_block)(told, j, j, block);
        FN(noisy_products)(0, j, own, scaled, block);
#pragma GCC unroll 4
        for (int a = 0; a < SIDE; a++) {
            inverse[j + a] = 1 / block[a][a];
            FN(multiply)(&det, block[a][a]);
#pragma GCC unroll 4
            for (int b = a + 1; b < SIDE; b++) {
                within[b][a] = block[b][a] * inverse[j + a];
                own[(j + a) * SIDE + b] = block[b][a];
#pragma GCC unroll 4
                for (int r = b; r < SIDE; r++) block[r][b] -= block[r][a] * within[b][a];
            }
        }
        for (ptrdiff_t i = j + SIDE; i < size; i += SIDE) {
            Vector *below = l + i * size;
            FN(noisy_block)(told, i, j, block);
            FN(noisy_products)(0, j, below, scaled, block);
#pragma GCC unroll 4
            for (int a = 0; a < SIDE; a++)
#pragma GCC unroll 4
                for (int r = 0; r < SIDE; r++) {
                    below[(j + a) * SIDE + r] = block[r][a];
#pragma GCC unroll 4
                    for (int b = a + 1; b < SIDE; b++) block[r][b] -= block[r][a] * within[b][a];
                }
        }
        Vector sum[SIDE];
#pragma GCC unroll 4
        for (int a = 0; a < SIDE; a++) {
            ptrdiff_t at = (j + a) * told->rows + told->at;
            sum[a] = OF(told->x, at) - told->mean[j + a];
            if (!told->whole) sum[a] *= OF(told->observed, at);
        }
        for (ptrdiff_t k = 0; k < j; k++)
#pragma GCC unroll 4
            for (int a = 0; a < SIDE; a++) sum[a] -= z[k] * scaled[k * SIDE + a];
#pragma GCC unroll 4
        for (int a = 0; a < SIDE; a++) {
            z[j + a] = sum[a];
            square += sum[a] * sum[a] * inverse[j + a];
#pragma GCC unroll 4
            for (int b = a + 1; b < SIDE; b++) sum[b] -= sum[a] * within[b][a];
        }
    }
    return FN(log_product)(det) + square;
}

/* L^-1 to ``w``, in columns of blocks, from what ``noisy_factor`` left. */
INLINE void FN(noisy_inverse)(ptrdiff_t size, const Vector *l, const Vector *inverse, Vector *w, Vector *scaled) {
    for (ptrdiff_t i = 0; i < size; i += SIDE) {
        FN(noisy_scaled)(0, i + SIDE - 1, l + i * size, inverse, scaled);
        for (ptrdiff_t j = 0; j <= i; j += SIDE) {
            Vector block[SIDE][SIDE], *to = w + j * size + i * SIDE;
#pragma GCC unroll 4
            for (int r = 0; r < SIDE; r++)
#pragma GCC unroll 4
                for (int c = 0; c < SIDE; c++) block[r][c] = FN(fill)(i == j && r == c);
            FN(noisy_products)(j, i, scaled, w + j * size, block);
#pragma GCC unroll 4
            for (int r = 0; r < SIDE; r++) {
#pragma GCC unroll 4
                for (int a = 0; a < r; a++)
#pragma GCC unroll 4
                    for (int c = 0; c < SIDE; c++) block[r][c] -= scaled[(i + a) * SIDE + r] * block[a][c];
#pragma GCC unroll 4
                for (int c = 0; c < SIDE; c++) to[r * SIDE + c] = block[r][c];
            }
        }
    }
}

/* Bounds on the density of each of a tile's rows in component k, from above, to ``joint``. */
TARGET static void FN(noisy_bound)(const Noisy *p, ptrdiff_t k, FN(Told) told, const double *logs, const double *base,
                                   double *joint, Vector (*d)[2], Vector (*z)[2]) {
    ptrdiff_t size = told.size;
    const double *white = p->white + k * size * size, *slopes = p->slopes + k * size;
    for (ptrdiff_t row = 0; row < told.rows; row += 2 * LANES) {
        ptrdiff_t at[2] = {row, row + LANES < told.rows ? row + LANES : row};
        Vector square[2] = {FN(fill)(0), FN(fill)(0)}, more[2] = {FN(fill)(0), FN(fill)(0)}, log_det[2] = {FN(fill)(0), FN(fill)(0)};
        for (ptrdiff_t i = 0; i < size; i++)
            for (int v = 0; v < 2; v++) d[i][v] = AT(told.x, i * told.rows + at[v]) - told.mean[i];
        for (ptrdiff_t j = 0; j < size; j += SIDE) {
            Vector sum[SIDE][2];
            for (int o = 0; o < SIDE; o++) sum[o][0] = sum[o][1] = FN(fill)(0);
            for (ptrdiff_t i = 0; i < j + SIDE; i++)
#pragma GCC unroll 4
                for (int o = 0; o < SIDE; o++)
                    for (int v = 0; v < 2; v++) sum[o][v] += white[i * size + j + o] * d[i][v];
#pragma GCC unroll 4
            for (int o = 0; o < SIDE; o++)
                for (int v = 0; v < 2; v++) z[j + o][v] = sum[o][v], square[v] += sum[o][v] * sum[o][v];
        }
        for (ptrdiff_t i = 0; i < size; i += SIDE) {
            Vector sum[SIDE][2];
            for (int o = 0; o < SIDE; o++) sum[o][0] = sum[o][1] = FN(fill)(0);
            for (ptrdiff_t j = i; j < size; j++)
#pragma GCC unroll 4
                for (int o = 0; o < SIDE; o++)
                    for (int v = 0; v < 2; v++) sum[o][v] += white[(i + o) * size + j] * z[j][v];
#pragma GCC unroll 4
            for (int o = 0; o < SIDE; o++)
                for (int v = 0; v < 2; v++) {
                    ptrdiff_t place = (i + o) * told.rows + at[v];
                    more[v] += sum[o][v] * sum[o][v] * (AT(told.noise, place) - p->middle[i + o]);
                    log_det[v] += slopes[i + o] * AT(logs, place);
                }
        }
        for (int v = 0; v < 2; v++) {
            Vector whole = square[v] + more[v], least = square[v] * square[v] * ROUNDED / whole;
            least = (Vector)((Integer)least & (whole > 0)); /* 0 where d is */
            AT(joint, at[v]) = p->ceilings[k] + AT(base, at[v]) - 0.5 * (least + log_det[v]);
        }
    }
}

/* What a tile says of ``count`` of its rows, LANES at most: gathered in ``picked``, unless they lie side by side. */
INLINE FN(Told) FN(noisy_pick)(FN(Told) told, ptrdiff_t noises, const ptrdiff_t *rows, ptrdiff_t count, double *picked) {
    told.at = rows[0];
    if (count == LANES && rows[count - 1] == rows[0] + count - 1) return told;
    const double *from[3] = {told.x, told.observed, told.noise};
    ptrdiff_t numbers[3] = {told.size, told.whole ? 0 : told.size, noises};
    double *to = picked;
    for (int part = 0; part < 3; part++)
        for (ptrdiff_t i = 0; i < numbers[part]; i++, to += LANES)
            for (ptrdiff_t lane = 0; lane < LANES; lane++)
                to[lane] = from[part][i * told.rows + rows[lane < count ? lane : 0]]; /* the rest is as the first is */
    told.at = 0, told.rows = LANES, told.x = picked, told.observed = picked + told.size * LANES;
    told.noise = told.observed + numbers[1] * LANES;
    return told;
}

/* Adds what one component expects of rows, LANES of them: ``share`` is theirs.  The sums of u u' - T^-1 are
   blocks of the lower triangle, row by row. */
TARGET static void FN(noisy_sums)(const FN(Told) *told, Vector share, Vector *l, Vector *inverse, Vector *z,
                                  Vector *scaled, Vector *w, Vector *sums) {
    ptrdiff_t size = told->size;
    Vector *u = l, *first = sums + 1, *second = first + size;
    FN(noisy_factor)(told, l, inverse, z, scaled);
    FN(noisy_inverse)(size, l, inverse, w, scaled);
    sums[0] += share;
    for (ptrdiff_t i = 0; i < size; i += SIDE) {
        Vector pull[SIDE];
        FN(noisy_scaled)(i, size, w + i * size, inverse, scaled);
#pragma GCC unroll 4
        for (int r = 0; r < SIDE; r++) pull[r] = FN(fill)(0);
        for (ptrdiff_t k = i; k < size; k++)
#pragma GCC unroll 4
            for (int r = 0; r < SIDE; r++) pull[r] += scaled[k * SIDE + r] * z[k];
#pragma GCC unroll 4
        for (int r = 0; r < SIDE; r++) {
            u[i + r] = pull[r];
            pull[r] *= share;
            first[i + r] += pull[r];
        }
        for (ptrdiff_t j = 0; j <= i; j += SIDE) {
            Vector block[SIDE][SIDE];
#pragma GCC unroll 4
            for (int r = 0; r < SIDE; r++)
#pragma GCC unroll 4
                for (int c = 0; c < SIDE; c++) block[r][c] = FN(fill)(0);
            FN(noisy_products)(i, size, scaled, w + j * size, block); /* minus T^-1 */
            if (!told->whole && i == j)
                for (int r = 0; r < SIDE; r++) block[r][r] += 1 - OF(told->observed, (i + r) * told->rows + told->at);
#pragma GCC unroll 4
            for (int r = 0; r < SIDE; r++)
#pragma GCC unroll 4
                for (int c = 0; c < SIDE; c++, second++) *second += pull[r] * u[j + c] + share * block[r][c];
        }
    }
}

/* The same two steps where no feature goes with another, for all rows of a tile. */
TARGET static void FN(noisy_variances)(ptrdiff_t n_features, ptrdiff_t rows, const double *x, const double *observed,
                                       const double *noise, const double *mean, const double *variance, double constant,
                                       const double *base, double *joint) {
    for (ptrdiff_t row = 0; row < rows; row += LANES) {
        Vector square = FN(fill)(0);
        FN(Product) det = FN(one)();
        for (ptrdiff_t i = 0; i < n_features; i++) {
            Vector seen = AT(observed, i * rows + row), d = (AT(x, i * rows + row) - mean[i]) * seen;
            Vector whole = (variance[i] + AT(noise, i * rows + row)) * seen + (1 - seen);
            square += d * d / whole;
            FN(multiply)(&det, whole);
        }
        AT(joint, row) = constant + AT(base, row) - 0.5 * (FN(log_product)(det) + square);
    }
}

TARGET static void FN(noisy_variance_sums)(ptrdiff_t n_features, ptrdiff_t rows, const double *x, const double *observed,
                                           const double *noise, const double *mean, const double *variance, const double *shares,
                                           double *sums) {
    for (ptrdiff_t i = 0; i < n_features; i++) {
        Vector first = FN(fill)(0), second = FN(fill)(0);
        for (ptrdiff_t row = 0; row < rows; row += LANES) {
            Vector inverse = AT(observed, i * rows + row) / (variance[i] + AT(noise, i * rows + row));
            Vector u = (AT(x, i * rows + row) - mean[i]) * inverse, share = AT(shares, row);
            first += share * u;
            second += share * (u * u - inverse);
        }
        sums[1 + i] += FN(total)(first);
        sums[1 + n_features + i] += FN(total)(second);
    }
    Vector count = FN(fill)(0);
    for (ptrdiff_t row = 0; row < rows; row += LANES) count += AT(shares, row);
    sums[0] += FN(total)(count);
}

/* Those two steps for rows without noise, which divide by nothing of their own: ``inverse`` and ``logs`` are of
   the variances. */
#define STEP 4
TARGET static void FN(quiet_variances)(ptrdiff_t n_features, ptrdiff_t rows, const double *x, const double *observed,
                                       const double *mean, const double *inverse, const double *logs, double constant,
                                       const double *base, double *joint) {
    for (ptrdiff_t row = 0; row < rows; row += STEP * LANES) {
        ptrdiff_t at[STEP];
        Vector sum[STEP];
        for (int v = 0; v < STEP; v++) {
            at[v] = row + v * LANES < rows ? row + v * LANES : row;
            sum[v] = FN(fill)(0);
        }
        for (ptrdiff_t i = 0; i < n_features; i++)
#pragma GCC unroll 4
            for (int v = 0; v < STEP; v++) {
                Vector d = AT(x, i * rows + at[v]) - mean[i];
                sum[v] += AT(observed, i * rows + at[v]) * (d * d * inverse[i] + logs[i]);
            }
        for (int v = 0; v < STEP; v++) AT(joint, at[v]) = constant + AT(base, at[v]) - 0.5 * sum[v];
    }
}

TARGET static void FN(quiet_variance_sums)(ptrdiff_t n_features, ptrdiff_t rows, const double *x, const double *observed,
                                           const double *mean, const double *inverse, const double *shares, double *sums) {
    Vector whole = FN(fill)(0);
    for (ptrdiff_t row = 0; row < rows; row += LANES) whole += AT(shares, row);
    sums[0] += FN(total)(whole);
    for (ptrdiff_t start = 0; start < n_features; start += STEP) {
        ptrdiff_t of[STEP];
        Vector count[STEP], first[STEP], second[STEP];
        for (int c = 0; c < STEP; c++) {
            of[c] = start + c < n_features ? start + c : start;
            count[c] = first[c] = second[c] = FN(fill)(0);
        }
        for (ptrdiff_t row = 0; row < rows; row += LANES) {
            Vector share = AT(shares, row);
#pragma GCC unroll 4
            for (int c = 0; c < STEP; c++) {
                Vector own = share * AT(observed, of[c] * rows + row), d = AT(x, of[c] * rows + row) - mean[of[c]], moved = own * d;
                count[c] += own, first[c] += moved, second[c] += moved * d;
            }
        }
        for (int c = 0; c < STEP && start + c < n_features; c++) {
            double unit = inverse[start + c];
            sums[1 + start + c] += FN(total)(first[c]) * unit;
            sums[1 + n_features + start + c] += (FN(total)(second[c]) * unit - FN(total)(count[c])) * unit;
        }
    }
}
#undef STEP

/* The densities of the rows of a tile, to L (K, rows): those of components that may have a share of a row.
   Returns how many were computed. */
TARGET static ptrdiff_t FN(noisy_densities)(const Noisy *p, FN(Told) told, ptrdiff_t noises, ptrdiff_t here, int bounded,
                                            const double *logs, const double *base, double *L, double *top,
                                            int64_t *best, ptrdiff_t *chosen, double *picked, Vector *space) {
    ptrdiff_t size = told.size, rows = told.rows, K = p->components, computed = 0;
    Vector *l = space, *inverse = l + 2 * size * size, *z = inverse + size, *scaled = z + size;
    for (ptrdiff_t k = 0; k < K && bounded; k++) {
        told.mean = p->means + k * size;
        FN(noisy_bound)(p, k, told, logs, base, L + k * rows, (Vector(*)[2])l, (Vector(*)[2])l + size);
    }
    for (ptrdiff_t row = 0; row < rows && bounded; row += LANES) {
        Vector most = AT(L, row);
        Integer *at = (Integer *)(best + row), which = {0};
        for (ptrdiff_t k = 1; k < K; k++) {
            Vector value = AT(L, k * rows + row);
            Integer more = value > most;
            most = (Vector)(((Integer)value & more) | ((Integer)most & ~more));
            which = (k & more) | (which & ~more);
        }
        for (ptrdiff_t i = 0; i < size && !told.whole; i++) /* -1 if there are holes, of which bounds know nothing */
            which |= AT(told.observed, i * rows + row) == 0;
        *at = which;
    }
    for (int last = !bounded; last < 2; last++) /* a row's best component is asked first, and tells ``top`` */
        for (ptrdiff_t k = 0; k < K; k++) {
            double *own = L + k * rows, cut = bounded ? p->cuts[k] : 0;
            ptrdiff_t count = 0;
            for (ptrdiff_t row = 0; row < here && !bounded; row++) chosen[count++] = row;
            for (ptrdiff_t row = 0; row < here && bounded && !last; row++) {
                chosen[count] = row;
                count += best[row] == k;
            }
            for (ptrdiff_t row = 0; row < here && bounded && last; row++) {
                int first = best[row] == k, asked = (best[row] < 0) | !(own[row] <= top[row] + cut);
                chosen[count] = row;
                count += asked & !first;
                own[row] = asked | first ? own[row] : -INFINITY;
            }
            computed += count;
            for (ptrdiff_t first = 0; first < count; first += LANES) {
                ptrdiff_t taken = count - first < LANES ? count - first : LANES;
                FN(Told) some = FN(noisy_pick)(told, noises, chosen + first, taken, picked);
                some.mean = p->means + k * size, some.covariance = p->covariances + k * size * size;
                Vector found = p->constants[k] - 0.5 * FN(noisy_factor)(&some, l, inverse, z, scaled);
                for (ptrdiff_t lane = 0; lane < taken; lane++) {
                    ptrdiff_t row = chosen[first + lane];
                    own[row] = found[lane] + base[row];
                    if (!last) top[row] = own[row];
                }
            }
        }
    return computed;
}

/* Adds what component k expects of the rows of a tile, of which it has the ``shares``. */
TARGET static void FN(noisy_expected)(const Noisy *p, ptrdiff_t k, FN(Told) told, ptrdiff_t noises, ptrdiff_t here,
                                      const double *shares, const double *weights, ptrdiff_t *chosen, double *picked,
                                      Vector *space) {
    ptrdiff_t size = told.size, D = p->n_features, count = 0, blocks = size / SIDE;
    Vector *l = space, *w = l + size * size, *inverse = w + size * size, *z = inverse + size, *scaled = z + size;
    Vector *sums = scaled + SIDE * size, *second = sums + 1 + size;
    double *to = p->sums + k * (1 + D + D * (D + 1) / 2);
    for (ptrdiff_t i = 0; i < 1 + size + blocks * (blocks + 1) / 2 * SIDE * SIDE; i++) sums[i] = FN(fill)(0);
    for (ptrdiff_t row = 0; row < here; row++)
        if (shares[row] > p->least[k] * weights[row]) chosen[count++] = row;
    for (ptrdiff_t first = 0; first < count; first += LANES) {
        ptrdiff_t taken = count - first < LANES ? count - first : LANES;
        FN(Told) some = FN(noisy_pick)(told, noises, chosen + first, taken, picked);
        some.mean = p->means + k * size, some.covariance = p->covariances + k * size * size;
        Vector share = FN(fill)(0);
        for (ptrdiff_t lane = 0; lane < taken; lane++) share[lane] = shares[chosen[first + lane]];
        FN(noisy_sums)(&some, share, l, inverse, z, scaled, w, sums);
    }
    for (ptrdiff_t i = 0; i < 1 + D; i++) to[i] += FN(total)(sums[i]);
    for (ptrdiff_t i = 0; i < size; i += SIDE) /* blocks of a lower triangle, to an upper one */
        for (ptrdiff_t j = 0; j <= i; j += SIDE)
            for (ptrdiff_t r = i; r < i + SIDE; r++)
                for (ptrdiff_t c = j; c < j + SIDE; c++, second++)
                    if (c <= r && r < D) to[1 + D + c * D - c * (c - 1) / 2 + r - c] += FN(total)(*second);
}

/* Returns 0, or what memory it wants if it has less. */
TARGET static ptrdiff_t FN(noisy)(const Noisy *p) {
    ptrdiff_t D = p->n_features, size = p->size, K = p->components, noises = p->pairs ? size * (size + 1) / 2 : size;
    ptrdiff_t blocks = size / SIDE, sums = 1 + size + blocks * (blocks + 1) / 2 * SIDE * SIDE;
    ptrdiff_t numbers = 2 * size + noises + (p->white ? size : 0) + K + 2 + 3;
    ptrdiff_t rows = TILE_BYTES / 8 / numbers / LANES * LANES;
    rows = rows < LANES ? LANES : rows > LARGEST_TILE ? LARGEST_TILE : rows;
    if (rows / LANES % 2 == 0) rows -= LANES; /* else features of a row share their places in the cache */
    ptrdiff_t vectors = p->full ? 2 * size * size + (2 + SIDE) * size + sums + 2 * size + noises : 0;
    ptrdiff_t quiet = p->noise ? 0 : K * D;
    size_t needed = ALIGNMENT + (size_t)(numbers * rows + 2 * quiet) * sizeof(double) + (size_t)(vectors + D) * sizeof(Vector);
    if (p->space_bytes < needed) return (ptrdiff_t)needed;
    double *x = aligned(p->space), *observed = x + size * rows, *noise = observed + size * rows, *logs = noise + noises * rows;
    double *L = logs + (p->white ? size * rows : 0), *base = L + K * rows, *weights = base + rows, *top = weights + rows;
    int64_t *best = (int64_t *)(top + rows);
    ptrdiff_t *chosen = (ptrdiff_t *)(best + rows);
    double *unit = (double *)(best + 2 * rows), *log_scale = unit + D, *picked = unit + D * LANES;
    double *inverse = picked, *log_variances = inverse + quiet; /* without noise nothing is picked */
    Vector *space = (Vector *)picked + 2 * size + noises;
    ptrdiff_t calm = 0;
    for (ptrdiff_t i = 0; i < quiet; i++) inverse[i] = 1 / p->covariances[i], log_variances[i] = log(p->covariances[i]);
    for (ptrdiff_t i = 0; i < D; i++) unit[i] = 1 / p->scale[i], log_scale[i] = log(p->scale[i]);
    for (ptrdiff_t start = 0; start < p->rows; start += rows) {
        ptrdiff_t here = p->rows - start < rows ? p->rows - start : rows;
        int whole = 1;
        for (ptrdiff_t row = 0; row < rows; row++) {
            ptrdiff_t number = start + (row < here ? row : 0); /* what fills a tile up has no weight */
            const double *own = p->noise ? p->noise + number * (p->pairs ? D * D : D) : NULL;
            double lost = 0;
            for (ptrdiff_t i = 0; i < D; i++) {
                ptrdiff_t at = number * D + i;
                double value = p->single_rows ? ((const float *)p->data)[at] : ((const double *)p->data)[at];
                int seen = value == value && (!own || own[p->pairs ? i * D + i : i] < INFINITY);
                observed[i * rows + row] = seen;
                x[i * rows + row] = seen ? (value - p->shift[i]) * unit[i] : 0;
                lost += seen ? -0.91893853320467274178 : log_scale[i];
                whole &= seen;
                if (!p->pairs) noise[i * rows + row] = seen && own ? own[i] * unit[i] * unit[i] : 0;
            }
            for (ptrdiff_t i = D; i < size; i++) {
                observed[i * rows + row] = 1, x[i * rows + row] = 0;
                if (!p->pairs) noise[i * rows + row] = 0;
            }
            for (ptrdiff_t i = 0, place = 0; i < size && p->pairs; i++)
                for (ptrdiff_t j = i; j < size; j++, place++)
                    noise[place * rows + row] = j < D && observed[i * rows + row] > 0 && observed[j * rows + row] > 0
                                                    ? own[i * D + j] * unit[i] * unit[j]
                                                    : 0;
            base[row] = lost;
            weights[row] = row >= here ? 0 : p->weights ? p->weights[number] : 1;
        }
        FN(Told) told = {size, rows, 0, p->pairs, whole, x, observed, noise, p->means, p->covariances};
        if (p->full) {
            int bounded = p->white && calm-- <= 0;
            for (ptrdiff_t i = 0; i < size && bounded; i++)
                for (ptrdiff_t row = 0; row < rows; row += LANES)
                    AT(logs, i * rows + row) = FN(logarithm)(AT(noise, i * rows + row) + p->under[i]);
            for (ptrdiff_t k = 0; k < K; k++)
                for (ptrdiff_t row = here; row < rows; row++) L[k * rows + row] = 0;
            ptrdiff_t computed = FN(noisy_densities)(p, told, noises, here, bounded, logs, base, L, top, best, chosen, picked, space);
            if (bounded && computed > K * here / 4 * 3) calm = CALM; /* so bounds don't help */
        } else
            for (ptrdiff_t k = 0; k < K; k++)
                if (quiet)
                    FN(quiet_variances)(D, rows, x, observed, p->means + k * D, inverse + k * D, log_variances + k * D, p->constants[k], base, L + k * rows);
                else
                    FN(noisy_variances)(D, rows, x, observed, noise, p->means + k * D, p->covariances + k * D, p->constants[k], base, L + k * rows);
        FN(normalise)(K, rows, L, weights, p->boost, p->most, p->objective, p->plain);
        for (ptrdiff_t k = 0; k < K; k++)
            if (p->full)
                FN(noisy_expected)(p, k, told, noises, here, L + k * rows, weights, chosen, picked, space);
            else if (quiet)
                FN(quiet_variance_sums)(D, rows, x, observed, p->means + k * D, inverse + k * D, L + k * rows, p->sums + k * (1 + 2 * D));
            else
                FN(noisy_variance_sums)(D, rows, x, observed, noise, p->means + k * D, p->covariances + k * D, L + k * rows, p->sums + k * (1 + 2 * D));
    }
    return 0;
}

#undef Vector
#undef Integer
#undef LANES
#undef INLINE
#undef AT
#undef OF
#undef SIDE
#undef HEIGHT
