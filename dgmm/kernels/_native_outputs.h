/* What a mixture says of each row of a block: the most probable component, the log-density, or the
   responsibilities.  Included by _native_kernel.h, whose tiles and log-densities these are. */

#if TERMS(0, 1) /* in double precision alone */

/* The first of the components with the largest L (components, rows), and the largest; whether all is a
   number, and each row's largest is finite. */
TARGET static int FN(likeliest)(ptrdiff_t components, ptrdiff_t rows, ptrdiff_t here, const REAL *L, REAL *top, WHOLE *best) {
    const REAL most = (REAL)TERMS(3.4028234663852886e38, 1.7976931348623157e308);
    Integer unfit = {0};
    for (ptrdiff_t row = 0; row < rows; row += LANES) {
        Vector highest = AT(L, row);
        Integer chosen = {0}, odd = highest != highest;
        for (ptrdiff_t k = 1; k < components; k++) {
            Vector value = AT(L, k * rows + row);
            Integer more = value > highest, number = (Integer){0} + (WHOLE)k;
            odd |= value != value;
            highest = (Vector)(((Integer)value & more) | ((Integer)highest & ~more));
            chosen = (number & more) | (chosen & ~more);
        }
        odd |= ~((highest >= -most) & (highest <= most));
        if (row + LANES > here) /* what pads the last rows is none */
            for (ptrdiff_t lane = here - row; lane < LANES; lane++)
                if (lane >= 0) odd[lane] = 0;
        unfit |= odd;
        AT(top, row) = highest;
        *(Integer *)(best + row) = chosen;
    }
    for (int lane = 0; lane < LANES; lane++)
        if (unfit[lane]) return 0;
    return 1;
}

/* log sum e^L of rows whose largest is ``top``; with ``responsibilities``, L becomes these. */
TARGET static void FN(log_sum)(ptrdiff_t components, ptrdiff_t rows, int responsibilities, REAL *L, REAL *top) {
    for (ptrdiff_t row = 0; row < rows; row += LANES) {
        const Vector highest = AT(top, row);
        Vector sum = FN(fill)(0);
        for (ptrdiff_t k = 0; k < components; k++) {
            Vector e = FN(exponential)(AT(L, k * rows + row) - highest);
            if (responsibilities) AT(L, k * rows + row) = e;
            sum += e;
        }
        AT(top, row) = highest + FN(logarithm)(sum);
        for (ptrdiff_t k = 0; responsibilities && k < components; k++) AT(L, k * rows + row) /= sum;
    }
}

/* The share of pairs of row and component whose L is below the largest by ``away`` at most. */
TARGET static double FN(near)(ptrdiff_t components, ptrdiff_t rows, ptrdiff_t here, const REAL *L, const REAL *top, REAL away) {
    ptrdiff_t count = 0;
    for (ptrdiff_t k = 0; k < components; k++)
        for (ptrdiff_t row = 0; row < here; row++) count += L[k * rows + row] >= top[row] - away;
    return (double)count / (double)(components * here);
}

/* The outputs of rows from ``first`` on, so long as leaving out pays (an E-step alone is less than half the work): the first row that is left, or UNUSABLE. */
TARGET static ptrdiff_t FN(outputs_of_few)(FN(Spare) *z, const Problem *p, const Outputs *out, ptrdiff_t first, REAL away, const REAL *ones) {
    ptrdiff_t here = 0;
    for (ptrdiff_t start = first; start < p->rows; start += here) {
        here = FN(next_tile)(z, p, start, first);
        const ptrdiff_t padded = (here + GRAIN - 1) / GRAIN * GRAIN, all = z->all;
        FN(find)(z, p->constants, p->tails, 0, all, here, padded, away);
        for (ptrdiff_t row = 0; row < here; row++)
            if (z->best[row] == all || !(z->top[row] - z->top[row] == 0)) return UNUSABLE;
        for (ptrdiff_t row = 0; out->labels && row < here; row++) out->labels[start + row] = z->best[row];
        if (out->scores || out->shares) {
            FN(exponentials)(z, 0, all, here, padded, ones);
            for (ptrdiff_t row = 0; out->scores && row < padded; row += LANES) {
                AT(z->lift, row) = AT(z->top, row) + FN(logarithm)(AT(z->sum, row));
                for (ptrdiff_t lane = 0; lane < LANES && row + lane < here; lane++) out->scores[start + row + lane] = z->lift[row + lane];
            }
            if (out->shares) memset(out->shares + start * all, 0, (size_t)(here * all) * sizeof(double));
            for (ptrdiff_t o = 0; out->shares && o < all; o++)
                for (ptrdiff_t e = z->begins[o]; e < z->begins[o + 1]; e++)
                    out->shares[(start + z->of[e]) * all + z->order[o]] = z->L[e] / z->sum[z->of[e]];
        }
        if (!FN(pays)(z, here, out->labels ? 0.4 : 0.45)) return start + here;
    }
    return p->rows;
}

/* The whole block, a tile at a time; returns 0, what memory it wants if it has less, or UNUSABLE if some
   row has no log-density that is a number. */
TARGET static ptrdiff_t FN(row_outputs)(const Problem *p, const Outputs *out) {
    const ptrdiff_t n_features = p->n_features, all = p->ends[0], more = p->tails ? all : 0;
    ptrdiff_t tile = TILE_BYTES / (ptrdiff_t)sizeof(REAL) / (n_features + all + more) / GRAIN * GRAIN;
    if (tile < SMALLEST_TILE) tile = SMALLEST_TILE;
    if (tile > LARGEST_TILE) tile = LARGEST_TILE;
    if (tile * sizeof(REAL) % 1024 == 0) tile -= GRAIN;
    const size_t needed = ALIGNMENT + (size_t)(2 * n_features * LANES + (n_features + all + more + 2) * tile + all) * sizeof(REAL);
    FN(Spare) spare;
    const int may = FN(may_skip)(p, tile);
    const size_t more_needed = may ? FN(furnish)(&spare, p, all, NULL) + ALIGNMENT : 0;
    if (p->space_bytes < needed + more_needed) return (ptrdiff_t)(needed + more_needed);
    REAL *scratch = aligned(p->space);
    if (may) FN(furnish)(&spare, p, all, aligned((char *)p->space + needed));
    const REAL away = out->scores || out->shares ? FN(away)(all) : 0; /* the best of all is left by that, too */
    Vector(*d)[2] = (Vector(*)[2])scratch;
    REAL *x = scratch + 2 * n_features * LANES, *L = x + n_features * tile, *U = L + all * tile, *top = U + more * tile;
    WHOLE *best = (WHOLE *)(top + tile);
    REAL *ones = top + 2 * tile;
    for (ptrdiff_t k = 0; k < all; k++) ones[k] = 1;
    for (ptrdiff_t start = 0; start < p->rows; start += tile) {
        const ptrdiff_t here = p->rows - start < tile ? p->rows - start : tile;
        const ptrdiff_t padded = (here + GRAIN - 1) / GRAIN * GRAIN;
        if (p->single_rows) ENTER(float) else ENTER(double)
        if (p->whiten) FN(whiten)(n_features, padded, p->whiten, x);
        EACH_STRUCTURE(LOG_JOINT)
        if (p->tails) FN(lengthen)(all, padded, p->tails, L, U);
        if (!FN(likeliest)(all, padded, here, L, top, best)) return UNUSABLE;
        const int few = start == 0 && may && FN(near)(all, padded, here, L, top, away) < (p->tails ? FEW_HEAVY : FEW);
        for (ptrdiff_t row = 0; out->labels && row < here; row++) out->labels[start + row] = best[row];
        if (out->scores || out->shares) FN(log_sum)(all, padded, out->shares != NULL, L, top);
        for (ptrdiff_t row = 0; out->scores && row < here; row++) out->scores[start + row] = top[row];
        for (ptrdiff_t row = 0; out->shares && row < here; row++) {
            double *to = out->shares + (start + row) * all;
            for (ptrdiff_t k = 0; k < all; k++) to[k] = L[k * padded + row];
        }
        if (few) {
            const ptrdiff_t left = FN(outputs_of_few)(&spare, p, out, here, away, ones);
            if (left == UNUSABLE) return UNUSABLE;
            start = left - tile; /* less what is added next */
        }
    }
    return 0;
}

#endif
