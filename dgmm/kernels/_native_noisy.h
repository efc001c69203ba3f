/* The E-step of rows with known errors, for one kind of vector; included as _native_incomplete.h is, in
   double precision only.

   A vector holds one number of consecutive rows of a tile.  With T = S + N, of a component and a row, and
   d = x - mu as its last row, what is factored is

     T = L D L',   z = L^-1 d,   z' D^-1 z the squared distance,   u = T^-1 d = L'^-1 D^-1 z.

   A value that is missing has 1 in T, and 0 beside it and in d.  All components are factored for all rows,
   for their densities; then each once more, and inverted, for the rows that it has a share of, picked
   together: most rows have a share in few. */

#define Vector FN(Vector)
#define Integer FN(Integer)
#define LANES ((ptrdiff_t)(BYTES / sizeof(double)))
#define INLINE static inline __attribute__((always_inline)) TARGET
#define AT(p, i) (*(Vector *)((p) + (i)))
#define OUT 8

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

/* Rows ``at`` to at + count of column j: what is left of them, and times D_j^-1. */
INLINE void FN(noisy_column)(ptrdiff_t size, ptrdiff_t at, int count, ptrdiff_t j, Vector *l, const Vector *c, Vector inverse,
                             Vector *pivot) {
    Vector sum[OUT], *own = l + j * size + at;
#pragma GCC unroll 8
    for (int o = 0; o < count; o++) sum[o] = own[o];
    for (ptrdiff_t k = 0; k < j; k++) {
        const Vector *before = l + k * size + at;
#pragma GCC unroll 8
        for (int o = 0; o < count; o++) sum[o] -= before[o] * c[k];
    }
#pragma GCC unroll 8
    for (int o = 0; o < count; o++) {
        own[o] = sum[o] * inverse;
        pivot[at + o] -= sum[o] * own[o];
    }
}

/* What is from ``first`` to ``end``, in pieces that stay in registers. */
#define PIECES(first, end, CALL)                                  \
    {                                                             \
        ptrdiff_t piece = first;                                  \
        for (; piece + OUT <= end; piece += OUT) CALL(piece, OUT) \
        if (piece + 4 <= end) {                                   \
            CALL(piece, 4)                                        \
            piece += 4;                                           \
        }                                                         \
        if (piece + 2 <= end) {                                   \
            CALL(piece, 2)                                        \
            piece += 2;                                           \
        }                                                         \
        if (piece < end) CALL(piece, 1)                           \
    }

/* Factors T and d, whose columns are in ``l`` (D, D + 1) below the diagonal, d last, and whose diagonal is in
   ``pivot`` (D + 1): to L, with D^-1 z last, and D, with minus the squared distance last.  To ``inverse``
   D^-1; returns log |T|. */
INLINE Vector FN(noisy_factor)(ptrdiff_t n_features, Vector *l, Vector *inverse, Vector *pivot, Vector *c) {
    FN(Product) det = FN(one)();
    ptrdiff_t size = n_features + 1;
    for (ptrdiff_t j = 0; j < n_features; j++) {
        Vector own = pivot[j], reciprocal = 1 / own;
        inverse[j] = reciprocal;
        FN(multiply)(&det, own);
        for (ptrdiff_t k = 0; k < j; k++) c[k] = l[k * size + j] * pivot[k];
#define COLUMN(at, count) FN(noisy_column)(size, at, count, j, l, c, reciprocal, pivot);
        PIECES(j + 1, size, COLUMN)
#undef COLUMN
    }
    return FN(log_product)(det);
}

/* Numbers ``at`` to at + count of the sums over k, from ``first`` to ``end``, of c_k times row k of ``w``. */
INLINE void FN(noisy_products)(ptrdiff_t n_features, ptrdiff_t first, ptrdiff_t end, ptrdiff_t at, int count,
                               const Vector *w, const Vector *c, Vector *to) {
    Vector sum[OUT];
#pragma GCC unroll 8
    for (int o = 0; o < count; o++) sum[o] = FN(fill)(0);
    for (ptrdiff_t k = first; k < end; k++) {
        const Vector *row = w + k * n_features + at;
#pragma GCC unroll 8
        for (int o = 0; o < count; o++) sum[o] += c[k] * row[o];
    }
#pragma GCC unroll 8
    for (int o = 0; o < count; o++) to[at + o] = sum[o];
}

/* L^-1 to ``w`` (D, D), from the factored ``l``; above its diagonal there are 0. */
INLINE void FN(noisy_inverse)(ptrdiff_t n_features, const Vector *l, Vector *w, Vector *c) {
    for (ptrdiff_t i = 0; i < n_features; i++) {
        Vector *own = w + i * n_features;
        for (ptrdiff_t k = 0; k < i; k++) c[k] = -l[k * (n_features + 1) + i];
#define INVERT(at, count) FN(noisy_products)(n_features, at, i, at, count, w, c, own);
        PIECES(0, i, INVERT)
#undef INVERT
        own[i] = FN(fill)(1);
        for (ptrdiff_t j = i + 1; j < n_features; j++) own[j] = FN(fill)(0);
    }
}

/* T and d of a component: of rows ``at`` to at + LANES of what a tile, or some of its rows, hold. */
INLINE void FN(noisy_fill)(ptrdiff_t n_features, ptrdiff_t rows, ptrdiff_t at, int pairs, int whole, const double *x,
                           const double *observed, const double *noise, const double *mean, const double *covariance, Vector *l,
                           Vector *pivot) {
    for (ptrdiff_t j = 0, place = 0; j < n_features; j++) {
        Vector seen = AT(observed, j * rows + at), *own = l + j * (n_features + 1);
        own[n_features] = (AT(x, j * rows + at) - mean[j]) * seen;
        pivot[j] = covariance[j * n_features + j] + AT(noise, (pairs ? place++ : j) * rows + at);
        if (!whole) pivot[j] = pivot[j] * seen + (1 - seen);
        for (ptrdiff_t i = j + 1; i < n_features; i++) {
            own[i] = FN(fill)(covariance[j * n_features + i]);
            if (pairs) own[i] += AT(noise, place++ * rows + at);
            if (!whole) own[i] *= seen * AT(observed, i * rows + at);
        }
    }
    pivot[n_features] = FN(fill)(0);
}

/* The density of each of a tile's rows in one component, to ``joint``. */
TARGET static void FN(noisy_full)(ptrdiff_t n_features, ptrdiff_t rows, int pairs, int whole, const double *x,
                                  const double *observed, const double *noise, const double *mean, const double *covariance,
                                  double constant, const double *base, double *joint, Vector *l, Vector *inverse, Vector *pivot,
                                  Vector *c) {
    for (ptrdiff_t row = 0; row < rows; row += LANES) {
        FN(noisy_fill)(n_features, rows, row, pairs, whole, x, observed, noise, mean, covariance, l, pivot);
        Vector log_det = FN(noisy_factor)(n_features, l, inverse, pivot, c);
        AT(joint, row) = constant + AT(base, row) - 0.5 * (log_det - pivot[n_features]);
    }
}

/* Adds what one component expects of rows, LANES of them: ``share`` is theirs. */
TARGET static void FN(noisy_sums)(ptrdiff_t n_features, int pairs, int whole, const double *x, const double *observed,
                                  const double *noise, const double *mean, const double *covariance, Vector share, Vector *l,
                                  Vector *inverse, Vector *pivot, Vector *c, Vector *w, Vector *sums) {
    Vector *u = pivot, *row = l, *first = sums + 1, *second = first + n_features;
    FN(noisy_fill)(n_features, LANES, 0, pairs, whole, x, observed, noise, mean, covariance, l, pivot);
    FN(noisy_factor)(n_features, l, inverse, pivot, c);
    FN(noisy_inverse)(n_features, l, w, c);
    for (ptrdiff_t k = 0; k < n_features; k++) c[k] = l[k * (n_features + 1) + n_features];
#define PULL(at, count) FN(noisy_products)(n_features, at, n_features, at, count, w, c, u);
    PIECES(0, n_features, PULL)
#undef PULL
    for (ptrdiff_t i = 0; i < n_features; i++) first[i] += share * u[i];
    sums[0] += share;
    for (ptrdiff_t i = 0, place = 0; i < n_features; i++) {
        for (ptrdiff_t k = i; k < n_features; k++) c[k] = w[k * n_features + i] * inverse[k];
#define SQUARE(at, count) FN(noisy_products)(n_features, i, n_features, at, count, w, c, row);
        PIECES(0, i + 1, SQUARE)
#undef SQUARE
        if (!whole) row[i] -= 1 - AT(observed, i * LANES);
        Vector own = share * u[i];
        for (ptrdiff_t j = 0; j <= i; j++) second[place++] += own * u[j] - share * row[j];
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

/* Returns 0, or what memory it wants if it has less. */
TARGET static ptrdiff_t FN(noisy)(const Noisy *p) {
    ptrdiff_t D = p->n_features, K = p->components, triangle = D * (D + 1) / 2, factors = p->full ? D * D : D;
    ptrdiff_t noises = p->pairs ? triangle : D, width = 1 + D + (p->full ? triangle : D);
    ptrdiff_t numbers = 2 * D + noises + K + 2, rows = TILE_BYTES / 8 / numbers / LANES * LANES;
    rows = rows < LANES ? LANES : rows > LARGEST_TILE ? LARGEST_TILE : rows;
    if (rows / LANES % 2 == 0) rows -= LANES; /* else features of a row share their places in the cache */
    ptrdiff_t vectors = (D + 1) * D + D * D + 3 * D + 1 + width + (2 * D + noises);
    size_t needed = ALIGNMENT + (size_t)(numbers * rows) * sizeof(double) + (size_t)vectors * sizeof(Vector);
    if (p->space_bytes < needed) return (ptrdiff_t)needed;
    double *x = aligned(p->space), *observed = x + D * rows, *noise = observed + D * rows, *L = noise + noises * rows;
    double *base = L + K * rows, *weights = base + rows;
    Vector *l = (Vector *)(weights + rows), *w = l + (D + 1) * D, *inverse = w + D * D, *pivot = inverse + D, *c = pivot + D + 1;
    Vector *sums = c + D;
    double *picked = (double *)(sums + width), *picked_observed = picked + D * LANES, *picked_noise = picked_observed + D * LANES;
    for (ptrdiff_t start = 0; start < p->rows; start += rows) {
        ptrdiff_t here = p->rows - start < rows ? p->rows - start : rows;
        int whole = 1;
        for (ptrdiff_t row = 0; row < rows; row++) {
            ptrdiff_t number = start + (row < here ? row : 0); /* what fills a tile up has no weight */
            const double *own = p->noise + number * (p->pairs ? D * D : D);
            double lost = 0;
            for (ptrdiff_t i = 0; i < D; i++) {
                ptrdiff_t at = number * D + i;
                double value = p->single_rows ? ((const float *)p->data)[at] : ((const double *)p->data)[at];
                int seen = value == value && own[p->pairs ? i * D + i : i] < INFINITY;
                observed[i * rows + row] = seen;
                x[i * rows + row] = seen ? (value - p->shift[i]) / p->scale[i] : 0;
                lost += seen ? -0.91893853320467274178 : log(p->scale[i]);
                whole &= seen;
                if (!p->pairs) noise[i * rows + row] = seen ? own[i] / p->scale[i] / p->scale[i] : 0;
            }
            for (ptrdiff_t i = 0, place = 0; i < D && p->pairs; i++)
                for (ptrdiff_t j = i; j < D; j++, place++)
                    noise[place * rows + row] = observed[i * rows + row] > 0 && observed[j * rows + row] > 0
                                                    ? own[i * D + j] / p->scale[i] / p->scale[j]
                                                    : 0;
            base[row] = lost;
            weights[row] = row >= here ? 0 : p->weights ? p->weights[number] : 1;
        }
        for (ptrdiff_t k = 0; k < K; k++) {
            const double *mean = p->means + k * D, *covariance = p->covariances + k * factors;
            if (p->full)
                FN(noisy_full)(D, rows, p->pairs, whole, x, observed, noise, mean, covariance, p->constants[k], base,
                               L + k * rows, l, inverse, pivot, c);
            else
                FN(noisy_variances)(D, rows, x, observed, noise, mean, covariance, p->constants[k], base, L + k * rows);
        }
        FN(normalise)(K, rows, L, weights, p->boost, p->most, p->objective, p->plain);
        for (ptrdiff_t k = 0; k < K; k++) {
            const double *mean = p->means + k * D, *covariance = p->covariances + k * factors, *shares = L + k * rows;
            double *to = p->sums + k * width;
            if (!p->full) {
                FN(noisy_variance_sums)(D, rows, x, observed, noise, mean, covariance, shares, to);
                continue;
            }
            for (ptrdiff_t i = 0; i < width; i++) sums[i] = FN(fill)(0);
            for (ptrdiff_t row = 0; row < here;) {
                Vector share = FN(fill)(0);
                ptrdiff_t taken = 0;
                for (; row < here && taken < LANES; row++) {
                    if (!(shares[row] > p->least[k] * weights[row])) continue;
                    for (ptrdiff_t i = 0; i < D; i++) {
                        picked[i * LANES + taken] = x[i * rows + row];
                        picked_observed[i * LANES + taken] = observed[i * rows + row];
                    }
                    for (ptrdiff_t i = 0; i < noises; i++) picked_noise[i * LANES + taken] = noise[i * rows + row];
                    share[taken++] = shares[row];
                }
                if (!taken) break;
                for (; taken < LANES; taken++) { /* as the first is, without a share */
                    for (ptrdiff_t i = 0; i < D; i++) {
                        picked[i * LANES + taken] = picked[i * LANES];
                        picked_observed[i * LANES + taken] = picked_observed[i * LANES];
                    }
                    for (ptrdiff_t i = 0; i < noises; i++) picked_noise[i * LANES + taken] = picked_noise[i * LANES];
                }
                FN(noisy_sums)(D, p->pairs, whole, picked, picked_observed, picked_noise, mean, covariance, share, l, inverse,
                               pivot, c, w, sums);
            }
            for (ptrdiff_t i = 0; i < 1 + D; i++) to[i] += FN(total)(sums[i]);
            for (ptrdiff_t i = 0, place = 1 + D; i < D; i++) /* a lower triangle, row by row, to an upper one */
                for (ptrdiff_t j = 0; j <= i; j++, place++)
                    to[1 + D + j * D - j * (j - 1) / 2 + i - j] += FN(total)(sums[place]);
        }
    }
    return 0;
}

#undef Vector
#undef Integer
#undef LANES
#undef INLINE
#undef AT
#undef OUT
#undef PIECES
