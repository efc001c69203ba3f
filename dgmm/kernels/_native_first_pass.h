/* The first pass over one block of rows, for one kind of vector; included as _native_kernel.h is, in
   double precision only, and after it.

   Rows lie in a tile as they came, one after another.  After PERIOD vectors each lane holds the column
   that it held before, so a column's sums go on in the lanes that hold it: nothing is transposed but
   for products of columns.  A tile's sums are taken twice while it is in the cache, for the mean and
   about it, and what the second finds of the first one's rounding goes into both; tiles are merged
   after Chan, Golub and LeVeque (1983). */

#define Vector FN(Vector)
#define Integer FN(Integer)
#define Loose FN(Loose)
#define Half FN(Half)
#define Hash FN(Hash)
typedef double Loose __attribute__((vector_size(BYTES), aligned(8), may_alias)); /* of the rows as they came, */
typedef float Half __attribute__((vector_size(BYTES / 2), aligned(4), may_alias)); /* in either precision */
typedef uint64_t Hash __attribute__((vector_size(BYTES)));
#define LANES ((ptrdiff_t)(BYTES / sizeof(double)))
#define INLINE static inline __attribute__((always_inline)) TARGET
#define AT(p, i) (*(Vector *)((p) + (i)))
#define STEP 4 /* vectors at a time, so that no sum waits for its last term; it divides PERIOD */

INLINE Vector FN(where)(Integer condition, Vector a, Vector b) {
    return (Vector)(((Integer)a & condition) | ((Integer)b & ~condition));
}

/* The numbers of a tile, as they came, as doubles. */
TARGET static void FN(enter)(const FirstPass *s, ptrdiff_t start, ptrdiff_t count, double *x) {
    ptrdiff_t i = 0;
    if (s->single_rows) {
        const float *from = (const float *)s->data + start;
        for (; i + LANES <= count; i += LANES) AT(x, i) = __builtin_convertvector(*(const Half *)(from + i), Vector);
        for (; i < count; i++) x[i] = from[i];
    } else {
        const double *from = (const double *)s->data + start;
        for (; i + LANES <= count; i += LANES) AT(x, i) = (Vector)(*(const Loose *)(from + i));
        for (; i < count; i++) x[i] = from[i];
    }
}

/* The same of a tile's rows that have a weight, with ``shares`` the weights of each of their numbers,
   over their sum.  How many rows those are, or UNUSABLE where a weight or a row is. */
TARGET static ptrdiff_t FN(enter_weighted)(const FirstPass *s, ptrdiff_t start, ptrdiff_t rows, double *x,
                                           double *shares, double *weight) {
    ptrdiff_t n_features = s->n_features, kept = 0;
    double sum = 0, absent = 0;
    for (ptrdiff_t row = start; row < start + rows; row++) {
        double own = s->weights[row], *to = x + kept * n_features;
        if (!(own >= 0)) return UNUSABLE;
        if (s->single_rows)
            for (ptrdiff_t i = 0; i < n_features; i++) to[i] = ((const float *)s->data)[row * n_features + i];
        else
            for (ptrdiff_t i = 0; i < n_features; i++) to[i] = ((const double *)s->data)[row * n_features + i];
        if (own == 0) {
            for (ptrdiff_t i = 0; i < n_features; i++) absent += to[i] * 0; /* 0, or NaN */
        } else {
            shares[kept++ * n_features] = own;
            sum += own;
        }
    }
    for (ptrdiff_t row = 0; row < kept; row++) {
        double *to = shares + row * n_features, own = to[0] / sum;
        for (ptrdiff_t i = 0; i < n_features; i++) to[i] = own;
    }
    *weight = sum;
    return absent == 0 && sum < INFINITY ? kept : UNUSABLE;
}

/* A tile's mean, and the extremes so far: those of whole periods in vectors, the others' in ``low`` and
   ``high``. */
INLINE void FN(sum_up)(int weighted, ptrdiff_t n_features, ptrdiff_t period, ptrdiff_t whole, ptrdiff_t count,
                       const double *x, const double *shares, Vector *lows, Vector *highs, double *low,
                       double *high, double *sums) {
    for (ptrdiff_t i = 0; i < n_features; i++) sums[i] = 0;
    ptrdiff_t column = 0;
    for (ptrdiff_t v = 0; v < period && whole; v += STEP) {
        Vector sum[STEP], least[STEP], most[STEP];
        for (int c = 0; c < STEP; c++) sum[c] = (Vector){0}, least[c] = lows[v + c], most[c] = highs[v + c];
        for (ptrdiff_t at = v * LANES; at < whole; at += period * LANES)
#pragma GCC unroll 4
            for (int c = 0; c < STEP; c++) {
                Vector value = AT(x, at + c * LANES);
                sum[c] += weighted ? value * AT(shares, at + c * LANES) : value;
                least[c] = FN(where)(value < least[c], value, least[c]);
                most[c] = FN(where)(value > most[c], value, most[c]);
            }
        for (int c = 0; c < STEP; c++) {
            lows[v + c] = least[c], highs[v + c] = most[c];
            for (int lane = 0; lane < LANES; lane++, column = column + 1 == n_features ? 0 : column + 1)
                sums[column] += sum[c][lane];
        }
    }
    for (ptrdiff_t at = whole; at < count; at++, column = column + 1 == n_features ? 0 : column + 1) {
        double value = x[at];
        sums[column] += weighted ? value * shares[at] : value;
        if (value < low[column]) low[column] = value;
        if (value > high[column]) high[column] = value;
    }
}

/* Sums of a tile's differences from its mean, and of their squares. */
INLINE void FN(sum_away)(int weighted, ptrdiff_t n_features, ptrdiff_t period, ptrdiff_t whole, ptrdiff_t count,
                         const double *x, const double *shares, const double *mean, const double *means,
                         double *sums, double *squares) {
    for (ptrdiff_t i = 0; i < n_features; i++) sums[i] = squares[i] = 0;
    ptrdiff_t column = 0;
    for (ptrdiff_t v = 0; v < period && whole; v += STEP) {
        Vector sum[STEP], square[STEP];
        for (int c = 0; c < STEP; c++) sum[c] = square[c] = (Vector){0};
        for (ptrdiff_t at = v * LANES; at < whole; at += period * LANES)
#pragma GCC unroll 4
            for (int c = 0; c < STEP; c++) {
                Vector away = AT(x, at + c * LANES) - AT(means, (v + c) * LANES);
                Vector share = weighted ? AT(shares, at + c * LANES) * away : away;
                sum[c] += share, square[c] += share * away;
            }
        for (int c = 0; c < STEP; c++)
            for (int lane = 0; lane < LANES; lane++, column = column + 1 == n_features ? 0 : column + 1)
                sums[column] += sum[c][lane], squares[column] += square[c][lane];
    }
    for (ptrdiff_t at = whole; at < count; at++, column = column + 1 == n_features ? 0 : column + 1) {
        double away = x[at] - mean[column], share = weighted ? away * shares[at] : away;
        sums[column] += share, squares[column] += share * away;
    }
}

/* Sums of products of columns' differences from their means, (D (D + 1) / 2). */
TARGET static void FN(sum_products)(ptrdiff_t n_features, ptrdiff_t rows, const double *x, const double *shares,
                                    const double *mean, double *a, double *b, double *products) {
    ptrdiff_t padded = (rows + LANES - 1) / LANES * LANES;
    for (ptrdiff_t i = 0; i < n_features; i++)
        for (ptrdiff_t row = 0; row < padded; row++) {
            double away = row < rows ? x[row * n_features + i] - mean[i] : 0;
            b[i * padded + row] = away;
            if (shares) a[i * padded + row] = row < rows ? away * shares[row * n_features] : 0;
        }
    for (ptrdiff_t i = 0; i < n_features * (n_features + 1) / 2; i++) products[i] = 0;
    FN(triangle)(padded, n_features, shares ? a : b, b, products);
}

/* The whole block, a tile at a time; returns 0, what memory it wants if it has less, or UNUSABLE. */
TARGET static ptrdiff_t FN(first_pass)(const FirstPass *s) {
    ptrdiff_t n_features = s->n_features, pairs = s->pairs ? n_features * (n_features + 1) / 2 : 0;
    ptrdiff_t period = n_features % 4 == 0 ? n_features : n_features % 2 == 0 ? 2 * n_features : 4 * n_features;
    ptrdiff_t arrays = 1 + (s->weights != NULL) + (s->pairs ? 1 + (s->weights != NULL) : 0);
    ptrdiff_t tile = FIRST_PASS_BYTES / (ptrdiff_t)sizeof(double) / arrays / n_features / (4 * LANES) * (4 * LANES);
    if (tile < SMALLEST_TILE) tile = SMALLEST_TILE;
    if (tile > LARGEST_FIRST_PASS_TILE) tile = LARGEST_FIRST_PASS_TILE;
    ptrdiff_t each = tile * n_features; /* a multiple of LANES */
    size_t needed = ALIGNMENT + (size_t)(arrays * each + 3 * period * LANES + 5 * n_features + pairs) * sizeof(double);
    if (s->space_bytes < needed) return (ptrdiff_t)needed;
    double *next = aligned(s->space), *x = next, *shares = NULL, *a = NULL, *b = NULL;
    next += each;
    if (s->weights) shares = next, next += each;
    if (s->pairs) b = next, next += each;
    if (s->pairs && s->weights) a = next, next += each;
    double *means = next, *lows = means + period * LANES, *highs = lows + period * LANES;
    double *mean = highs + period * LANES, *missed = mean + n_features, *squares = missed + n_features;
    double *delta = squares + n_features, *products = delta + n_features;
    for (ptrdiff_t i = 0; i < period * LANES; i++) lows[i] = INFINITY, highs[i] = -INFINITY;
    for (ptrdiff_t start = 0; start < s->rows; start += tile) {
        ptrdiff_t rows = s->rows - start < tile ? s->rows - start : tile;
        double weight = (double)rows, inverse = 1 / weight;
        if (s->weights) {
            rows = FN(enter_weighted)(s, start, rows, x, shares, &weight);
            if (rows < 0) return UNUSABLE;
            if (!rows) continue;
            inverse = 1;
        } else
            FN(enter)(s, start * n_features, rows * n_features, x);
        ptrdiff_t count = rows * n_features, whole = count / (period * LANES) * (period * LANES);
        if (s->weights)
            FN(sum_up)(1, n_features, period, whole, count, x, shares, (Vector *)lows, (Vector *)highs, s->low, s->high, mean);
        else
            FN(sum_up)(0, n_features, period, whole, count, x, NULL, (Vector *)lows, (Vector *)highs, s->low, s->high, mean);
        double finite = 0;
        for (ptrdiff_t i = 0; i < n_features; i++) mean[i] *= inverse, finite += mean[i] * 0;
        if (finite != 0) return UNUSABLE; /* NaN and infinity stay in sums */
        for (ptrdiff_t i = 0; i < period * LANES; i++) means[i] = mean[i % n_features];
        if (s->weights)
            FN(sum_away)(1, n_features, period, whole, count, x, shares, mean, means, missed, squares);
        else
            FN(sum_away)(0, n_features, period, whole, count, x, NULL, mean, means, missed, squares);
        s->totals[0] += (double)rows;
        s->totals[1] += weight;
        double share = weight / s->totals[1], between = (s->totals[1] - weight) * share;
        double scale = s->weights ? weight : 1; /* from shares to weights */
        for (ptrdiff_t i = 0; i < n_features; i++) {
            missed[i] *= inverse;
            delta[i] = mean[i] + missed[i] - s->mean[i];
        }
        if (s->pairs) {
            FN(sum_products)(n_features, rows, x, shares, mean, a, b, products);
            for (ptrdiff_t i = 0, at = 0; i < n_features; i++)
                for (ptrdiff_t j = i; j < n_features; j++, at++) {
                    double within = scale * products[at] - weight * missed[i] * missed[j];
                    s->scatter[i * n_features + j] += within + between * delta[i] * delta[j];
                }
        } else
            for (ptrdiff_t i = 0; i < n_features; i++) {
                double within = scale * squares[i] - weight * missed[i] * missed[i];
                s->scatter[i] += (within < 0 ? 0 : within) + between * delta[i] * delta[i];
            }
        for (ptrdiff_t i = 0; i < n_features; i++) s->mean[i] += share * delta[i];
    }
    for (ptrdiff_t i = 0; i < period * LANES; i++) {
        double *low = s->low + i % n_features, *high = s->high + i % n_features;
        if (lows[i] < *low) *low = lows[i];
        if (highs[i] > *high) *high = highs[i];
    }
    for (ptrdiff_t i = 0; s->pairs && i < n_features; i++)
        for (ptrdiff_t j = 0; j < i; j++) s->scatter[i * n_features + j] = s->scatter[j * n_features + i];
    return 0;
}

INLINE Hash FN(mixed)(Hash z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Of ``count`` row numbers from ``start`` on, those whose hash of 53 bits is ``least`` or more, to
   ``numbers``; how many they are. */
TARGET static ptrdiff_t FN(draw)(int64_t start, ptrdiff_t count, uint64_t seed, uint64_t least, int64_t *numbers) {
    const Hash mixed = FN(mixed)((Hash){0} + seed);
    Hash lanes;
    ptrdiff_t found = 0;
    for (int lane = 0; lane < LANES; lane++) lanes[lane] = (uint64_t)lane;
    for (ptrdiff_t i = 0; i < count; i += LANES) {
        Hash bits = FN(mixed)((lanes + (uint64_t)(start + i) + 1 + mixed) * 0x9E3779B97F4A7C15u) >> 11;
        Integer hits = (Integer)bits >= (int64_t)least; /* 53 bits have no sign */
        int64_t any = 0;
        for (int lane = 0; lane < LANES; lane++) any |= hits[lane];
        if (any)
            for (ptrdiff_t lane = 0; lane < LANES && i + lane < count; lane++)
                if (hits[lane]) numbers[found++] = start + i + lane;
    }
    return found;
}

#undef Vector
#undef Integer
#undef Loose
#undef Half
#undef Hash
#undef LANES
#undef INLINE
#undef AT
#undef STEP
