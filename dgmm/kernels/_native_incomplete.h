/* The E-step of rows with holes, for one kind of vector; included as _native_kernel.h is, in double
   precision only, and after it.

   A vector holds one number of consecutive components: so all rows are alike, however few have the
   same holes.  For a pattern of holes, the covariances are factored as far as it is observed:

     S = | L   0 | | D   0 | | L' G' |     with the observed features first: so G z, for z = L^-1 d_o,
         | G   1 | | 0   C | | 0  1  |     is what a component expects of d_m, C its covariance, and
                                           z' D^-1 z the squared distance of d_o. */

#define Vector FN(Vector)
#define Integer FN(Integer)
#define Given FN(Given)
typedef double Given __attribute__((vector_size(BYTES), aligned(8), may_alias)); /* in arrays from outside */
#define LANES ((ptrdiff_t)(BYTES / sizeof(double)))
#define INLINE static inline __attribute__((always_inline)) TARGET

/* Factors ``l`` (D, D), of which the lower triangle is S at first, as far as ``seen``: L and G below
   the diagonal, and C.  To ``inverse`` D^-1; returns log |D|. */
INLINE Vector FN(factor)(ptrdiff_t n_features, ptrdiff_t seen, Vector *l, Vector *inverse) {
    Vector log_det = FN(fill)(0);
    for (ptrdiff_t j = 0; j < seen; j++) {
        log_det += FN(logarithm)(l[j * n_features + j]);
        inverse[j] = 1 / l[j * n_features + j];
        for (ptrdiff_t i = j + 1; i < n_features; i++) {
            Vector scaled = l[i * n_features + j] * inverse[j];
            for (ptrdiff_t k = j + 1; k <= i; k++) l[i * n_features + k] -= scaled * l[k * n_features + j];
        }
        for (ptrdiff_t i = j + 1; i < n_features; i++) l[i * n_features + j] *= inverse[j];
    }
    return log_det;
}

/* The rows of one pattern after another; returns 0, or what memory it wants if it has less. */
TARGET static ptrdiff_t FN(incomplete)(const Incomplete *p) {
    ptrdiff_t n_features = p->n_features, vectors = p->components / LANES, factors = n_features * n_features;
    size_t needed = ALIGNMENT + (size_t)(vectors * (factors + 2 * n_features + 3)) * sizeof(Vector) +
                    (size_t)n_features * (sizeof(double) + (1 + (size_t)n_features) * sizeof(ptrdiff_t));
    if (p->space_bytes < needed) return (ptrdiff_t)needed;
    Vector *l = aligned(p->space), *inverse = l + vectors * factors, *d = inverse + vectors * n_features;
    Vector *log_det = d + vectors * n_features, *joint = log_det + vectors, *counts = joint + vectors;
    double *x = (double *)(counts + vectors);
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
            log_det[v] = FN(factor)(n_features, seen, own, inverse + v * n_features);
            log_det[v] = constants[v] - 0.5 * log_det[v] - 0.91893853320467274178 * (double)seen;
        }
        for (; next < p->ends[pattern]; next++) {
            double weight = p->weights ? p->weights[next] : 1, top = -INFINITY, sum = 0, boosted = 0;
            for (ptrdiff_t i = 0; i < seen; i++) {
                ptrdiff_t number = next * n_features + at[i];
                double value = p->single_rows ? ((const float *)p->data)[number] : ((const double *)p->data)[number];
                x[i] = (value - p->shift[at[i]]) / p->scale[at[i]];
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
