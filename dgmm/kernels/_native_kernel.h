/* The E-step of one block of rows, for one kind of vector.  Included once for each, with

     BYTES        of a vector
     REAL, WHOLE  the number and the integer that its lanes hold, of one size
     MANTISSA     the bits of a REAL's mantissa; BIAS that of its exponent
     TERMS(s, d)  picks the number of a series' terms for single or double precision
     TARGET       the instructions it may use
     FN(name)     name, made different for each inclusion

   A tile is some rows (a multiple of GRAIN) that fit the cache, transposed: x[i] holds feature
   i of all its rows, so a vector holds one feature of consecutive rows.  Each component works on the
   differences d = x - mu from its mean, so nothing cancels; see kernel.py.  Products of OUT x 2 or
   ROWS x COLUMNS vectors at a time stay in registers. */

typedef REAL FN(Vector) __attribute__((vector_size(BYTES)));
typedef WHOLE FN(Integer) __attribute__((vector_size(BYTES)));
#define Vector FN(Vector)
#define Integer FN(Integer)
#define LANES ((ptrdiff_t)(BYTES / sizeof(REAL)))
#define INLINE static inline __attribute__((always_inline)) TARGET
#define AT(p, i) (*(Vector *)((p) + (i)))
#define GRAIN (4 * LANES) /* tiles have a multiple of it as rows */

INLINE Vector FN(fill)(REAL value) { return (Vector){0} + value; }

INLINE double FN(total)(Vector v) {
    double sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += (double)v[lane];
    return sum;
}

/* e^x for x <= 0, within 2 units in the last place; 0 where that is not a normal number, and in double
   precision already below e^-600: products of less are subnormal, and take ten times as long.
   Cody and Waite's reduction to |r| <= log(2) / 2, then Taylor's polynomial. */
INLINE Vector FN(exponential)(Vector x) {
    const REAL round = (REAL)1.5 * ((WHOLE)1 << MANTISSA), high = 0.693145751953125, low = 1.42860682030941723212e-6;
    static const REAL c[] = {1. / 6227020800, 1. / 479001600, 1. / 39916800, 1. / 3628800, 1. / 362880,
                             1. / 40320, 1. / 5040, 1. / 720, 1. / 120, 1. / 24, 1. / 6, 0.5, 1, 1};
    Vector scaled = x * (REAL)1.4426950408889634074 + round;
    Vector n = scaled - round;
    Vector r = x - n * high - n * low, p = FN(fill)(c[TERMS(6, 0)]);
    for (size_t i = TERMS(6, 0) + 1; i < sizeof(c) / sizeof(c[0]); i++) p = p * r + c[i];
    Vector power = (Vector)(((Integer)scaled + BIAS) << MANTISSA);
    return (Vector)((Integer)(p * power) & (x > (REAL)TERMS(-87, -600)));
}

/* log x for a normal x > 0: with x = 2^e f, f in [1/sqrt 2, sqrt 2), log f = 2 artanh((f-1)/(f+1)). */
INLINE Vector FN(logarithm)(Vector x) {
    const REAL magic = (WHOLE)1 << MANTISSA; /* adding an integer's bits to its own makes it a REAL */
    Integer bits = (Integer)x, ones = (Integer){0} + (((WHOLE)1 << MANTISSA) - 1);
    Integer one = (Integer)FN(fill)(1);
    Vector e = (Vector)((bits >> MANTISSA) | (Integer)FN(fill)(magic)) - (magic + BIAS);
    Vector f = (Vector)((bits & ones) | one);
    Integer large = f > (REAL)1.4142135623730951;
    f = (Vector)(((Integer)(f * (REAL)0.5) & large) | ((Integer)f & ~large));
    e += (Vector)(one & large);
    Vector s = (f - 1) / (f + 1), square = s * s, p = FN(fill)((REAL)1 / TERMS(9, 23));
    for (int i = TERMS(7, 21); i > 0; i -= 2) p = p * square + (REAL)1 / i;
    return e * (REAL)0.693145751953125 + (2 * s * p + e * (REAL)1.42860682030941723212e-6);
}

/* sum over i <= j of factor[i][j] d[i], squared, summed over j: |C'd|^2 for an upper triangular C;
   OUT values of j at a time. */
#define OUT 4
INLINE void FN(square_norm)(ptrdiff_t n_features, const REAL *factor, const Vector (*d)[2], Vector q[2]) {
    ptrdiff_t j = 0;
    q[0] = q[1] = FN(fill)(0);
    for (; j + OUT <= n_features; j += OUT) {
        Vector sum[OUT][2];
        for (int o = 0; o < OUT; o++) sum[o][0] = sum[o][1] = FN(fill)(0);
        for (ptrdiff_t i = 0; i < j; i++) {
            const REAL *row = factor + i * n_features + j;
#pragma GCC unroll 4
            for (int o = 0; o < OUT; o++) sum[o][0] += row[o] * d[i][0], sum[o][1] += row[o] * d[i][1];
        }
#pragma GCC unroll 4
        for (int i = 0; i < OUT; i++) {
            const REAL *row = factor + (i + j) * n_features + j;
#pragma GCC unroll 4
            for (int o = i; o < OUT; o++)
                sum[o][0] += row[o] * d[i + j][0], sum[o][1] += row[o] * d[i + j][1];
        }
#pragma GCC unroll 4
        for (int o = 0; o < OUT; o++) q[0] += sum[o][0] * sum[o][0], q[1] += sum[o][1] * sum[o][1];
    }
    for (; j < n_features; j++) {
        Vector sum[2] = {FN(fill)(0), FN(fill)(0)};
        for (ptrdiff_t i = 0; i <= j; i++)
            sum[0] += factor[i * n_features + j] * d[i][0], sum[1] += factor[i * n_features + j] * d[i][1];
        q[0] += sum[0] * sum[0], q[1] += sum[1] * sum[1];
    }
}

/* x becomes C'x, from the last feature to the first, as C is upper triangular. */
TARGET static void FN(whiten)(ptrdiff_t n_features, ptrdiff_t rows, const REAL *factor, REAL *x) {
    for (ptrdiff_t j = n_features - 1; j >= 0; j--)
        for (ptrdiff_t row = 0; row < rows; row += LANES) {
            Vector sum = FN(fill)(0);
            for (ptrdiff_t i = 0; i <= j; i++) sum += factor[i * n_features + j] * AT(x, i * rows + row);
            AT(x, j * rows + row) = sum;
        }
}

/* out[row] = constant - |C'(x - mu)|^2 / 2; the factor C is (D, D), (D) or (1).  STEP vectors of rows
   at a time, so that no sum waits for its last term. */
#define STEP 4
INLINE void FN(log_joint)(int structure, ptrdiff_t n_features, ptrdiff_t rows, const REAL *x, const REAL *mean,
                          const REAL *factor, REAL constant, REAL *out, Vector (*d)[2]) {
    const REAL half = 0.5, common = structure == DIAGONAL ? half : half * factor[0] * factor[0];
    for (ptrdiff_t row = 0; structure == FULL && row < rows; row += 2 * LANES) {
        Vector q[2];
        for (ptrdiff_t i = 0; i < n_features; i++)
            for (int v = 0; v < 2; v++) d[i][v] = AT(x, i * rows + row + v * LANES) - mean[i];
        FN(square_norm)(n_features, factor, (const Vector(*)[2])d, q);
        for (int v = 0; v < 2; v++) AT(out, row + v * LANES) = constant - half * q[v];
    }
    for (ptrdiff_t row = 0; structure != FULL && row < rows; row += STEP * LANES) {
        Vector q[STEP];
        for (int v = 0; v < STEP; v++) q[v] = FN(fill)(0);
        for (ptrdiff_t i = 0; i < n_features; i++)
#pragma GCC unroll 4
            for (int v = 0; v < STEP; v++) {
                Vector moved = AT(x, i * rows + row + v * LANES) - mean[i];
                if (structure == DIAGONAL) moved *= factor[i];
                q[v] += moved * moved;
            }
        for (int v = 0; v < STEP; v++) AT(out, row + v * LANES) = constant - common * q[v];
    }
}

/* L becomes w softmax(L); objective += w log sum e^L, and plain += w log sum e^(L + penalty), with
   boost = e^(penalty - most). */
TARGET static void FN(normalise)(ptrdiff_t components, ptrdiff_t rows, REAL *L, const REAL *w, const REAL *boost,
                                 double most, double *objective, double *plain) {
    double here = 0, lifted = 0, weights = 0;
    for (ptrdiff_t row = 0; row < rows; row += LANES) {
        Vector top = AT(L, row), sum = FN(fill)(0), boosted = FN(fill)(0), weight = AT(w, row);
        for (ptrdiff_t k = 1; k < components; k++) {
            Vector value = AT(L, k * rows + row);
            Integer more = value > top;
            top = (Vector)(((Integer)value & more) | ((Integer)top & ~more));
        }
        for (ptrdiff_t k = 0; k < components; k++) {
            Vector e = FN(exponential)(AT(L, k * rows + row) - top);
            AT(L, k * rows + row) = e;
            sum += e, boosted += boost[k] * e;
        }
        Vector scale = weight / sum;
        for (ptrdiff_t k = 0; k < components; k++) AT(L, k * rows + row) *= scale;
        here += FN(total)(weight * (top + FN(logarithm)(sum)));
        lifted += FN(total)(weight * FN(logarithm)(boosted / sum));
        weights += FN(total)(weight);
    }
    *objective += here;
    *plain += here + lifted + most * weights;
}

/* For components that are t distributions, L = -d / 2 becomes the log-density, and U = log(1 + d / nu). */
TARGET static void FN(lengthen)(ptrdiff_t components, ptrdiff_t rows, const double *tails, REAL *L, REAL *U) {
    for (ptrdiff_t k = 0; k < components; k++, tails += TAILS) {
        const REAL twice = (REAL)(2 * tails[INVERSE]), unit = (REAL)tails[UNIT], half = (REAL)tails[HALF];
        for (ptrdiff_t row = 0; row < rows; row += LANES) {
            ptrdiff_t at = k * rows + row;
            Vector away = FN(logarithm)(1 - twice * AT(L, at));
            AT(U, at) = away;
            AT(L, at) = unit - half * away;
        }
    }
}

/* Responsibilities in L become times E[u]; latent += sum r, sum r (E[log u] - E[u]). */
TARGET static void FN(weigh)(ptrdiff_t components, ptrdiff_t rows, const double *tails, REAL *L, const REAL *U, double *latent) {
    for (ptrdiff_t k = 0; k < components; k++, tails += TAILS, latent += 2) {
        const REAL log_scale = (REAL)tails[LOG_SCALE], scale = (REAL)exp(tails[LOG_SCALE]), offset = (REAL)tails[OFFSET];
        Vector count = FN(fill)(0), evidence = FN(fill)(0);
        for (ptrdiff_t row = 0; row < rows; row += LANES) {
            ptrdiff_t at = k * rows + row;
            Vector r = AT(L, at), away = AT(U, at), u = scale * FN(exponential)(-away);
            count += r;
            evidence += r * (log_scale - away + offset - u);
            AT(L, at) = r * u;
        }
        latent[0] += FN(total)(count), latent[1] += FN(total)(evidence);
    }
}

/* sums[p + q of a ROWS x COLUMNS piece of the upper triangle] += sum over rows of a_i b_j. */
#define ROWS 4
#define COLUMNS 2
INLINE void FN(products)(ptrdiff_t rows, ptrdiff_t n_features, ptrdiff_t i, ptrdiff_t j, int height, int width,
                         int triangle, const REAL *a, const REAL *b, double *sums) {
    Vector sum[ROWS][ROWS];
    for (int r = 0; r < height; r++)
        for (int c = triangle ? r : 0; c < width; c++) sum[r][c] = FN(fill)(0);
    for (ptrdiff_t row = 0; row < rows; row += LANES) {
#pragma GCC unroll 4
        for (int r = 0; r < height; r++) {
            Vector left = AT(a, (i + r) * rows + row);
#pragma GCC unroll 4
            for (int c = triangle ? r : 0; c < width; c++) sum[r][c] += left * AT(b, (j + c) * rows + row);
        }
    }
    for (int r = 0; r < height; r++)
        for (int c = triangle ? r : 0; c < width; c++) {
            ptrdiff_t y = i + r, z = j + c;
            sums[y * n_features - y * (y - 1) / 2 + z - y] += FN(total)(sum[r][c]);
        }
}

/* The upper triangle of the sums over rows of a_i b_j is added to ``sums``. */
INLINE void FN(triangle)(ptrdiff_t rows, ptrdiff_t n_features, const REAL *a, const REAL *b, double *sums) {
    ptrdiff_t i = 0;
    for (; i + ROWS <= n_features; i += ROWS) {
        ptrdiff_t j = i + ROWS;
        FN(products)(rows, n_features, i, i, ROWS, ROWS, 1, a, b, sums);
        for (; j + COLUMNS <= n_features; j += COLUMNS)
            FN(products)(rows, n_features, i, j, ROWS, COLUMNS, 0, a, b, sums);
        for (; j < n_features; j++) FN(products)(rows, n_features, i, j, ROWS, 1, 0, a, b, sums);
    }
    for (; i < n_features; i++)
        for (ptrdiff_t j = i; j < n_features; j++) FN(products)(rows, n_features, i, j, 1, 1, 0, a, b, sums);
}

/* Sums of r d, and for some structures r d^2, over features i to i + count; for FULL, d and r d stay. */
INLINE void FN(add_moments)(int structure, ptrdiff_t rows, ptrdiff_t i, int count, const REAL *x, const REAL *mean,
                            const REAL *r, REAL *a, REAL *b, double *first, double *second) {
    Vector sum[ROWS], square[ROWS];
    for (int c = 0; c < count; c++) sum[c] = square[c] = FN(fill)(0);
    for (ptrdiff_t row = 0; row < rows; row += LANES)
#pragma GCC unroll 4
        for (int c = 0; c < count; c++) {
            ptrdiff_t at = (i + c) * rows + row;
            Vector d = AT(x, at) - mean[i + c], rd = AT(r, row) * d;
            if (structure == FULL) AT(a, at) = rd, AT(b, at) = d;
            sum[c] += rd;
            if (structure == DIAGONAL || structure == SPHERICAL) square[c] += rd * d;
        }
    for (int c = 0; c < count; c++) {
        first[i + c] += FN(total)(sum[c]);
        if (structure == DIAGONAL) second[i + c] += FN(total)(square[c]);
        if (structure == SPHERICAL) second[0] += FN(total)(square[c]);
    }
}

/* Add sum r T(x - mu) over a tile to ``sums``; ``a`` and ``b`` hold a tile each. */
INLINE void FN(add_sums)(int structure, ptrdiff_t n_features, ptrdiff_t rows, const REAL *x, const REAL *mean,
                         const REAL *r, REAL *a, REAL *b, double *sums) {
    ptrdiff_t i = 0;
    Vector count = FN(fill)(0);
    for (ptrdiff_t row = 0; row < rows; row += LANES) count += AT(r, row);
    sums[0] += FN(total)(count);
    double *first = sums + 1, *second = sums + 1 + n_features;
    for (; i + ROWS <= n_features; i += ROWS) FN(add_moments)(structure, rows, i, ROWS, x, mean, r, a, b, first, second);
    for (; i < n_features; i++) FN(add_moments)(structure, rows, i, 1, x, mean, r, a, b, first, second);
    if (structure != FULL) return;
    FN(triangle)(rows, n_features, a, b, second);
}

/* A tile's log-densities, and its sums, for all components: a copy for each structure, so that no
   inner loop asks which it is. */
INLINE void FN(all_log_joint)(int structure, const Problem *p, ptrdiff_t all, ptrdiff_t rows, const REAL *x,
                              REAL *L, Vector (*d)[2]) {
    const REAL *means = p->means, *precisions_cholesky = p->precisions_cholesky, *constants = p->constants;
    for (ptrdiff_t k = 0; k < all; k++)
        FN(log_joint)(structure, p->n_features, rows, x, means + k * p->n_features, precisions_cholesky + k * p->factor_size, constants[k],
                      L + k * rows, d);
}

INLINE void FN(all_sums)(int structure, const Problem *p, ptrdiff_t all, ptrdiff_t rows, const REAL *x, const REAL *L,
                         REAL *a, REAL *b) {
    const REAL *means = p->means;
    for (ptrdiff_t k = 0; k < all; k++)
        FN(add_sums)(structure, p->n_features, rows, x, means + k * p->n_features, L + k * rows, a, b, p->sums + k * p->width);
}

#define EACH_STRUCTURE(call)                \
    switch (p->structure) {                 \
    case FULL: call(FULL); break;           \
    case DIAGONAL: call(DIAGONAL); break;   \
    case SPHERICAL: call(SPHERICAL); break; \
    default: call(TIED);                    \
    }
#define LOG_JOINT(structure) FN(all_log_joint)(structure, p, all, padded, x, L, d)
#define SUMS(structure) FN(all_sums)(structure, p, all, padded, x, L, a, b)

/* Rows from ``start`` in the frame, transposed; what pads the last ones is 0. */
#define ENTER(type)                                                                          \
    for (ptrdiff_t i = 0; i < n_features; i++) {                                                   \
        const type *from = (const type *)p->data + start * n_features + i;                         \
        double shift = p->shift[i], inverse = 1 / p->scale[i];                               \
        REAL *to = x + i * padded;                                                           \
        for (ptrdiff_t row = 0; row < here; row++) to[row] = (REAL)((from[row * n_features] - shift) * inverse); \
        for (ptrdiff_t row = here; row < padded; row++) to[row] = 0;                         \
    }

#include "_native_skipping.h"

/* The whole block, a tile at a time; returns 0, or what memory it wants if it has less. */
TARGET static ptrdiff_t FN(e_step)(const Problem *p) {
    ptrdiff_t n_features = p->n_features, all = p->ends[p->mixtures - 1];
    ptrdiff_t more = p->tails ? all : 0; /* a number for each component and row */
    ptrdiff_t tile = TILE_BYTES / (ptrdiff_t)sizeof(REAL) / (3 * n_features + all + more) / GRAIN * GRAIN;
    if (tile < SMALLEST_TILE) tile = SMALLEST_TILE;
    if (tile > LARGEST_TILE) tile = LARGEST_TILE;
    if (tile * sizeof(REAL) % 1024 == 0) tile -= GRAIN; /* or features would share cache lines' places */
    size_t needed = ALIGNMENT + (size_t)(2 * n_features * LANES + (3 * n_features + all + more + 1) * tile + all) * sizeof(REAL);
    FN(Spare) spare;
    const int may = FN(may_skip)(p, tile);
    const size_t more_needed = may ? FN(furnish)(&spare, p, all, NULL) + ALIGNMENT : 0;
    if (p->space_bytes < needed + more_needed) return (ptrdiff_t)(needed + more_needed);
    REAL *scratch = aligned(p->space);
    if (may) FN(furnish)(&spare, p, all, aligned((char *)p->space + needed));
    /* Vectors first: each array starts on a vector. */
    Vector(*d)[2] = (Vector(*)[2])scratch;
    REAL *x = scratch + 2 * n_features * LANES, *a = x + n_features * tile, *b = a + n_features * tile, *L = b + n_features * tile;
    REAL *U = L + all * tile, *w = U + more * tile, *boost = w + tile;
    for (ptrdiff_t mixture = 0, k = 0; mixture < p->mixtures; mixture++)
        for (; k < p->ends[mixture]; k++) boost[k] = (REAL)exp(p->penalties[k] - p->most[mixture]);
    for (ptrdiff_t start = 0; start < p->rows; start += tile) {
        ptrdiff_t here = p->rows - start < tile ? p->rows - start : tile;
        ptrdiff_t padded = (here + GRAIN - 1) / GRAIN * GRAIN;
        for (ptrdiff_t row = 0; row < padded; row++)
            w[row] = row >= here ? 0 : p->weights ? (REAL)p->weights[start + row] : 1;
        if (p->single_rows) ENTER(float) else ENTER(double)
        if (p->weights) /* whatever a row of weight 0 holds is as if absent */
            for (ptrdiff_t row = 0; row < here; row++)
                if (w[row] == 0)
                    for (ptrdiff_t i = 0; i < n_features; i++) x[i * padded + row] = 0;
        if (p->whiten) FN(whiten)(n_features, padded, p->whiten, x);
        EACH_STRUCTURE(LOG_JOINT)
        if (p->tails) FN(lengthen)(all, padded, p->tails, L, U);
        for (ptrdiff_t mixture = 0, k = 0; mixture < p->mixtures; k = p->ends[mixture++])
            FN(normalise)(p->ends[mixture] - k, padded, L + k * padded, w, boost + k, p->most[mixture],
                          p->objective + mixture, p->plain + mixture);
        if (p->tails) FN(weigh)(all, padded, p->tails, L, U, p->latent);
        EACH_STRUCTURE(SUMS)
        if (start == 0 && may && FN(few)(all, padded, here, L, w, p->tails ? FEW_HEAVY : FEW)) start = FN(skipping)(&spare, p, here, boost) - tile; /* where it ended, less what is added next */
    }
    return 0;
}

#include "_native_outputs.h"

#undef Vector
#undef Integer
#undef LANES
#undef INLINE
#undef AT
#undef OUT
#undef STEP
#undef GRAIN
#undef ROWS
#undef COLUMNS
#undef EACH_STRUCTURE
#undef LOG_JOINT
#undef SUMS
#undef ENTER
#undef SPAN
#undef WIDE
#undef GROUP
#undef FILTERS
#undef ANYWHERE
