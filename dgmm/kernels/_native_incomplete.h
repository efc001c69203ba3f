/* The E-step of rows with holes, for one kind of vector; included as _native_kernel.h is, in double
   precision only, and after it.

   A vector holds one number of consecutive components: so all rows are alike, however few have the
   same holes.  For a pattern of holes, the covariances are factored as far as it is observed:

     S = | L   0 | | D   0 | | L' G' |     with the observed features first: so G z, for z = L^-1 d_o,
         | G   1 | | 0   C | | 0  1  |     is what a component expects of d_m, C its covariance, and
                                           z' D^-1 z the squared distance of d_o.

   Where SOME rows or more have a pattern, they are complete rows of fewer features, and a vector holds
   some rows; their sums are completed once, with H = G L^-1, so that H d_o is expected of d_m. */

#define Vector FN(Vector)
#define Integer FN(Integer)
#define Given FN(Given)
typedef double Given __attribute__((vector_size(BYTES), aligned(8), may_alias)); /* in arrays from outside */
#define LANES ((ptrdiff_t)(BYTES / sizeof(double)))
#define INLINE static inline __attribute__((always_inline)) TARGET

/* Factors ``l`` (D, D), of which the lower triangle is S at first, as far as ``seen``: L and G below
   the diagonal, and C.  To ``inverse`` D^-1; returns log |D|.  ``column`` (D) is space. */
INLINE Vector FN(factor)(ptrdiff_t n_features, ptrdiff_t seen, Vector *l, Vector *inverse, Vector *column) {
    Vector log_det = FN(fill)(0);
    for (ptrdiff_t j = 0; j < seen; j++) {
        log_det += FN(logarithm)(l[j * n_features + j]);
        inverse[j] = 1 / l[j * n_features + j];
        for (ptrdiff_t i = j + 1; i < n_features; i++) column[i] = l[i * n_features + j];
        for (ptrdiff_t i = j + 1; i < n_features; i++) {
            Vector scaled = column[i] * inverse[j];
            l[i * n_features + j] = scaled;
            for (ptrdiff_t k = j + 1; k <= i; k++) l[i * n_features + k] -= scaled * column[k];
        }
    }
    return log_det;
}

/* L and G, as ``factor`` left them, become L^-1 and H. */
INLINE void FN(invert)(ptrdiff_t n_features, ptrdiff_t seen, Vector *l) {
    for (ptrdiff_t i = 1; i < n_features; i++) {
        Vector *own = l + i * n_features;
        ptrdiff_t end = i < seen ? i : seen;
        for (ptrdiff_t k = 1; k < end; k++)
            for (ptrdiff_t j = 0; j < k; j++) own[j] += own[k] * l[k * n_features + j];
        for (ptrdiff_t j = 0; j < end && i < seen; j++) own[j] = -own[j];
    }
}

/* Where rows with a pattern are taken together. */
typedef struct {
    ptrdiff_t tile, components;              /* rows at a time; those that are not there to fill a vector */
    double *unit;                            /* (n_features), 1 / scale */
    double *x, *a, *b, *joint, *weights;     /* (n_features, tile), thrice, (components, tile), (tile) */
    double *means, *factors, *constants;     /* (components, n_features), (components, n_features^2), (components) */
    double *sums;                            /* (all, width) */
    Vector (*d)[2], *second, *moved;         /* (n_features), (n_features^2), (n_features^2) */
} FN(Together);

/* The sums of the rows from ``first`` to ``end``, of which the features ``at`` were ``seen``, as those of
   complete rows of these features. */
INLINE void FN(sum_together)(const Incomplete *p, const FN(Together) *t, ptrdiff_t first, ptrdiff_t end, ptrdiff_t seen, const ptrdiff_t *at) {
    ptrdiff_t width = 1 + seen + seen * (seen + 1) / 2, n_features = p->n_features;
    for (ptrdiff_t i = 0; i < p->components * width; i++) t->sums[i] = 0;
    for (ptrdiff_t start = first; start < end; start += t->tile) {
        ptrdiff_t here = end - start < t->tile ? end - start : t->tile;
        ptrdiff_t padded = (here + 2 * LANES - 1) / (2 * LANES) * (2 * LANES);
        for (ptrdiff_t row = 0; row < padded; row++) t->weights[row] = row >= here ? 0 : p->weights ? p->weights[start + row] : 1;
        for (ptrdiff_t i = 0; i < seen; i++) {
            double *to = t->x + i * padded, shift = p->shift[at[i]], unit = t->unit[at[i]];
            ptrdiff_t from = start * n_features + at[i];
            if (p->single_rows)
                for (ptrdiff_t row = 0; row < here; row++) to[row] = (((const float *)p->data)[from + row * n_features] - shift) * unit;
            else
                for (ptrdiff_t row = 0; row < here; row++) to[row] = (((const double *)p->data)[from + row * n_features] - shift) * unit;
            for (ptrdiff_t row = here; row < padded; row++) to[row] = 0;
        }
        for (ptrdiff_t k = 0; k < t->components; k++)
            FN(log_joint)(FULL, seen, padded, t->x, t->means + k * seen, t->factors + k * seen * seen, t->constants[k], t->joint + k * padded, t->d);
        FN(normalise)(t->components, padded, t->joint, t->weights, p->boost, p->most, p->objective, p->plain);
        for (ptrdiff_t k = 0; k < t->components; k++)
            FN(add_sums)(FULL, seen, padded, t->x, t->means + k * seen, t->joint + k * padded, t->a, t->b, t->sums + k * width);
    }
}

/* Those sums to the ones of all features, for the components of vector ``v``, but for C; ``own`` has been
   inverted.  Returns the counts. */
INLINE Vector FN(complete_sums)(const Incomplete *p, const FN(Together) *t, ptrdiff_t v, const Vector *own, ptrdiff_t seen,
                                const ptrdiff_t *at, const ptrdiff_t *place) {
    ptrdiff_t width = 1 + seen + seen * (seen + 1) / 2, n_features = p->n_features, vectors = p->components / LANES;
    const double *from = t->sums + v * LANES * width;
    Given *to = (Given *)p->sums + v, *products = to + (1 + n_features) * vectors;
    Vector count, first;
    for (int lane = 0; lane < LANES; lane++) count[lane] = from[lane * width];
    for (ptrdiff_t i = 0; i < seen; i++) {
        for (int lane = 0; lane < LANES; lane++) first[lane] = from[lane * width + 1 + i];
        to[(1 + at[i]) * vectors] += first;
        for (ptrdiff_t m = seen; m < n_features; m++) to[(1 + at[m]) * vectors] += own[m * n_features + i] * first;
    }
    for (ptrdiff_t i = 0, number = 1 + seen; i < seen; i++)
        for (ptrdiff_t j = i; j < seen; j++, number++) {
            Vector value;
            for (int lane = 0; lane < LANES; lane++) value[lane] = from[lane * width + number];
            t->second[i * seen + j] = t->second[j * seen + i] = value;
            products[place[j * n_features + i]] += value;
        }
    for (ptrdiff_t m = seen; m < n_features; m++) {
        Vector *moved = t->moved + m * seen;
        for (ptrdiff_t j = 0; j < seen; j++) moved[j] = FN(fill)(0);
        for (ptrdiff_t i = 0; i < seen; i++)
            for (ptrdiff_t j = 0; j < seen; j++) moved[j] += own[m * n_features + i] * t->second[i * seen + j];
        for (ptrdiff_t j = 0; j < seen; j++) products[place[m * n_features + j]] += moved[j];
        for (ptrdiff_t other = seen; other <= m; other++) {
            Vector sum = FN(fill)(0);
            for (ptrdiff_t j = 0; j < seen; j++) sum += moved[j] * own[other * n_features + j];
            products[place[m * n_features + other]] += sum;
        }
    }
    return count;
}

/* The rows of one pattern after another; returns 0, or what memory it wants if it has less. */
TARGET static ptrdiff_t FN(incomplete)(const Incomplete *p) {
    ptrdiff_t n_features = p->n_features, vectors = p->components / LANES, factors = n_features * n_features;
    ptrdiff_t width = 1 + n_features + n_features * (n_features + 1) / 2, K = p->components;
    while (K > 1 && ((const double *)p->boost)[K - 1] == 0) K--; /* what fills vectors has none */
    ptrdiff_t tile = TILE_BYTES / 8 / (3 * n_features + K) / (2 * LANES) * (2 * LANES);
    tile = tile < SMALLEST_TILE ? SMALLEST_TILE : tile > LARGEST_TILE ? LARGEST_TILE : tile;
    if (tile % 128 == 0) tile -= 2 * LANES; /* else features share their places in the cache */
    ptrdiff_t together = (3 * n_features + K + 1) * tile + K * (n_features + factors + 1) + p->components * width + n_features;
    size_t needed = ALIGNMENT + (size_t)(vectors * (factors + 2 * n_features + 3) + 3 * n_features + 2 * factors) * sizeof(Vector) +
                    (size_t)n_features * (sizeof(double) + (1 + (size_t)n_features) * sizeof(ptrdiff_t)) +
                    (size_t)together * sizeof(double) + sizeof(Vector);
    if (p->space_bytes < needed) return (ptrdiff_t)needed;
    Vector *l = aligned(p->space), *inverse = l + vectors * factors, *d = inverse + vectors * n_features;
    Vector *log_det = d + vectors * n_features, *joint = log_det + vectors, *counts = joint + vectors;
    Vector *column = counts + vectors;
    FN(Together) t = {.tile = tile, .components = K, .d = (Vector(*)[2])(column + n_features), .second = column + 3 * n_features};
    t.moved = t.second + factors;
    t.x = (double *)(t.moved + factors), t.a = t.x + n_features * tile, t.b = t.a + n_features * tile, t.joint = t.b + n_features * tile;
    t.weights = t.joint + K * tile, t.means = t.weights + tile, t.factors = t.means + K * n_features;
    t.constants = t.factors + K * factors, t.sums = t.constants + K, t.unit = t.sums + p->components * width;
    for (ptrdiff_t i = 0; i < n_features; i++) t.unit[i] = 1 / p->scale[i];
    double *x = t.unit + n_features;
    ptrdiff_t *at = (ptrdiff_t *)(x + n_features), *place = at + n_features; /* in the upper triangle of all features */
    const Given *means = p->means, *covariances = p->covariances, *constants = p->constants, *boost = p->boost;
    Given *sums = p->sums;
    for (ptrdiff_t pattern = 0, next = 0; pattern < p->patterns; pattern++) {
        ptrdiff_t seen = 0, lost = n_features - 1;
        for (ptrdiff_t i = 0; i < n_features; i++) {
            ptrdiff_t number = next * n_features + i;
            double value = p->single_rows ? ((const float *)p->data)[number] : ((const double *)p->data)[number];
            at[value == value ? seen++ : lost--] = i;
        }
        for (ptrdiff_t i = 0; i < n_features; i++)
            for (ptrdiff_t j = 0; j <= i; j++) {
                ptrdiff_t a = at[i] < at[j] ? at[i] : at[j], b = at[i] + at[j] - a;
                place[i * n_features + j] = (a * n_features - a * (a - 1) / 2 + b - a) * vectors;
            }
        for (ptrdiff_t v = 0; v < vectors; v++) {
            Vector *own = l + v * factors;
            counts[v] = FN(fill)(0);
            for (ptrdiff_t i = 0; i < n_features; i++)
                for (ptrdiff_t j = 0; j <= i; j++)
                    own[i * n_features + j] = covariances[(at[i] * n_features + at[j]) * vectors + v];
            log_det[v] = FN(factor)(n_features, seen, own, inverse + v * n_features, column);
            log_det[v] = constants[v] - 0.5 * log_det[v] - 0.91893853320467274178 * (double)seen;
        }
        if (p->ends[pattern] - next >= SOME) {
            for (ptrdiff_t v = 0; v < vectors; v++) {
                Vector *own = l + v * factors;
                FN(invert)(n_features, seen, own);
                for (ptrdiff_t lane = 0, k = v * LANES; lane < LANES && k < K; lane++, k++) {
                    double *to = t.factors + k * seen * seen;
                    t.constants[k] = log_det[v][lane];
                    for (ptrdiff_t j = 0; j < seen; j++) {
                        double root = sqrt(inverse[v * n_features + j][lane]);
                        t.means[k * seen + j] = ((const double *)p->means)[at[j] * p->components + k];
                        for (ptrdiff_t i = 0; i < j; i++) to[i * seen + j] = own[j * n_features + i][lane] * root;
                        to[j * seen + j] = root;
                    }
                }
            }
            FN(sum_together)(p, &t, next, p->ends[pattern], seen, at);
            for (ptrdiff_t v = 0; v < vectors; v++) counts[v] = FN(complete_sums)(p, &t, v, l + v * factors, seen, at, place);
            next = p->ends[pattern];
        }
        for (; next < p->ends[pattern]; next++) {
            double weight = p->weights ? p->weights[next] : 1, top = -INFINITY, sum = 0, boosted = 0;
            for (ptrdiff_t i = 0; i < seen; i++) {
                ptrdiff_t number = next * n_features + at[i];
                double value = p->single_rows ? ((const float *)p->data)[number] : ((const double *)p->data)[number];
                x[i] = (value - p->shift[at[i]]) * t.unit[at[i]];
            }
            for (ptrdiff_t v = 0; v < vectors; v++) {
                Vector *own = l + v * factors, *away = d + v * n_features, square = FN(fill)(0);
                for (ptrdiff_t i = 0; i < seen; i++) away[i] = x[i] - means[at[i] * vectors + v];
                for (ptrdiff_t i = seen; i < n_features; i++) away[i] = FN(fill)(0);
                for (ptrdiff_t j = 0; j < seen; j++) { /* d_o becomes z, and 0 becomes G z */
                    Vector one = away[j];
                    square += one * one * inverse[v * n_features + j];
                    for (ptrdiff_t i = j + 1; i < seen; i++) away[i] -= own[i * n_features + j] * one;
                    for (ptrdiff_t i = seen; i < n_features; i++) away[i] += own[i * n_features + j] * one;
                }
                for (ptrdiff_t i = 0; i < seen; i++) away[i] = x[i] - means[at[i] * vectors + v];
                joint[v] = log_det[v] - 0.5 * square;
                for (int lane = 0; lane < LANES; lane++)
                    if (joint[v][lane] > top) top = joint[v][lane];
            }
            for (ptrdiff_t v = 0; v < vectors; v++) {
                joint[v] = FN(exponential)(joint[v] - top);
                sum += FN(total)(joint[v]), boosted += FN(total)(boost[v] * joint[v]);
            }
            double here = weight * (top + log(sum));
            *p->objective += here;
            *p->plain += here + weight * (p->most + log(boosted / sum));
            for (ptrdiff_t v = 0; v < vectors; v++) {
                Vector share = joint[v] * (weight / sum), *away = d + v * n_features;
                Given *to = sums + v;
                counts[v] += share;
                for (ptrdiff_t i = 0; i < n_features; i++) to[(1 + at[i]) * vectors] += share * away[i];
                to += (1 + n_features) * vectors;
                for (ptrdiff_t i = 0; i < n_features; i++) {
                    Vector moved = share * away[i];
                    for (ptrdiff_t j = 0; j <= i; j++) to[place[i * n_features + j]] += moved * away[j];
                }
            }
        }
        for (ptrdiff_t v = 0; v < vectors; v++) {
            Vector *own = l + v * factors;
            Given *to = sums + v + (1 + n_features) * vectors;
            sums[v] += counts[v];
            for (ptrdiff_t i = seen; i < n_features; i++)
                for (ptrdiff_t j = seen; j <= i; j++) to[place[i * n_features + j]] += counts[v] * own[i * n_features + j];
        }
    }
    return 0;
}

#undef Vector
#undef Integer
#undef Given
#undef LANES
#undef INLINE
