/* The compiled twins of kernel.e_step and of what em/first_pass.py does with a block: see the modules
   native*.py for what goes in and out, _native_kernel.h and _native_first_pass.h for the arithmetic.  Plain C with GCC's and
   Clang's vector extensions; one build serves every machine of its architecture, as the widest vectors
   that the processor has are chosen when it is loaded.

   Each array is checked (``take``) before a pointer to it is used.  That takes forty lines of CPython's own
   buffer protocol; nanobind or Cython would take fewer, and a C++ compiler or a generator to build. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define TILE_BYTES (320 << 10) /* what a tile's arrays may take, of a second-level cache of 512 KiB */
#define SMALLEST_TILE 64 /* rows, whatever they take */
#define LARGEST_TILE 512
#define SKIPPING_BYTES (640 << 10) /* the same of tiles whose rows are of few components each */
#define SMALLEST_SKIPPING_TILE 256
#define FEWEST_FEATURES 24 /* of blocks where that is tried; */
#define FEWEST_COMPONENTS 16
#define FEWEST_ROWS 1600
#define FIRST_ROWS 128 /* that are tried so */
#define FEW 0.4  /* the share of pairs of row and component that matters there, */
#define FEW_HEAVY 0.8 /* the same of t distributions, of which a dense tile takes logarithms and exponentials besides, */
#define PAYS 0.9 /* and of the work that is still to be done, at most; */
#define PAYS_HEAVY(features) ((features) < 48 ? 1.05 : 1.3) /* times this of t distributions, as measured */
#define SOME 16 /* rows with the same holes that are taken together */
#define FIRST_PASS_BYTES (128 << 10) /* the same of the first pass */
#define LARGEST_FIRST_PASS_TILE 4096
#define UNUSABLE (-1)            /* what is said of a block with a NaN and the like */
#define ALIGNMENT 64             /* of a tile's arrays, in bytes */

enum { FULL, DIAGONAL, SPHERICAL, TIED }; /* as native.CODES */

typedef struct {
    ptrdiff_t rows, n_features, mixtures, width, factor_size;
    int structure, single_rows, skips;                       /* whether what contributes nothing may be left out */
    const void *data;                                        /* (rows, n_features), float or double; */
    const double *weights, *shift, *scale;                   /* (rows) or NULL, (n_features), (n_features) */
    const void *whiten;                                      /* (n_features, n_features), for tied, or NULL */
    const void *means, *precisions_cholesky, *constants;                 /* for all components of all mixtures */
    const double *penalties, *most;                          /* (all), (mixtures): the largest of each */
    const int64_t *ends;                                     /* (mixtures), one past its last component */
    double *sums, *objective, *plain;                        /* (all, width), (mixtures), (mixtures) */
    const double *tails;                                     /* (all, TAILS) where components are t distributions, or NULL */
    double *latent;                                          /* (all, 2) then */
    void *space;                                             /* for tiles, and how much of it there is */
    size_t space_bytes;
} Problem;

typedef struct { /* of each row; what is not wanted is NULL */
    int64_t *labels;
    double *scores, *shares; /* (rows), (rows, all) */
} Outputs;

typedef struct {
    ptrdiff_t rows, n_features;
    int single_rows, pairs;                  /* whether products of columns are wanted, or squares only */
    const void *data;                        /* (rows, n_features), float or double; */
    const double *weights;                   /* (rows) or NULL */
    double *totals, *mean, *scatter;         /* (2), rows that have a weight and its sum; (n_features); (n_features, n_features) or (n_features) */
    double *low, *high;                      /* (n_features) */
    void *space;
    size_t space_bytes;
} FirstPass;

typedef struct {
    ptrdiff_t n_features, components, patterns; /* components: a multiple of the lanes of any vector */
    int single_rows;
    const void *data;                        /* (rows, n_features), float or double, NaN where nothing was observed; */
    const double *weights, *shift, *scale;   /* (rows) or NULL, (n_features), (n_features) */
    const int64_t *ends;                     /* (patterns), one past its last row */
    const void *means, *covariances;         /* (n_features, components), (n_features, n_features, components) */
    const void *constants, *boost;           /* (components) */
    double most;                             /* the largest penalty */
    void *sums;                              /* (width, components) */
    double *objective, *plain;               /* (1) */
    void *space;
    size_t space_bytes;
} Incomplete;

enum { INVERSE, UNIT, HALF, LOG_SCALE, OFFSET, TAILS }; /* 1 / nu, log C and all that a component's density holds at its
   location, (nu + D) / 2, log((nu + D) / nu), psi((nu + D) / 2) - log((nu + D) / 2): see model/tails.py */

typedef struct {
    ptrdiff_t rows, n_features, size, components; /* size: n_features, or the next multiple of 4 if full */
    int single_rows, pairs, full;            /* pairs: noise is covariances, or variances alone; full: so are the components' */
    const void *data;                        /* (rows, n_features), float or double, NaN where nothing was observed; */
    const double *noise;                     /* (rows, n_features, n_features) or (rows, n_features), infinite where nothing was; or NULL */
    const double *weights, *shift, *scale;   /* (rows) or NULL, (n_features), (n_features) */
    const double *means, *covariances;       /* (components, size), (components, size, size) or as means */
    const double *constants, *boost, *least; /* (components); least: of shares that are not lost beside the others */
    const double *white, *middle, *slopes;   /* of the bounds on densities, or NULL: (components, size, size), (size), (components, size) */
    const double *under, *ceilings, *cuts;   /* (size), (components), (components): see noise_bounds.py */
    double most;                             /* the largest penalty */
    double *sums;                            /* (components, width) */
    double *objective, *plain;               /* (1) */
    void *space;
    size_t space_bytes;
} Noisy;

#define ROUNDED (1 - 1e-6) /* what a bound on a squared distance keeps: more than rounding takes */
#define CALM 7             /* tiles without bounds after one in which they were of little use */
#define MOST_LANES 8 /* doubles in the widest vector */

static void *aligned(void *space) {
    return (void *)(((uintptr_t)space + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

#define PASTE(name, set, precision) name##_##set##_##precision
#define WITH(name, set, precision) PASTE(name, set, precision)

#define TARGET
#define BYTES 16
#define SET plain
#include "_native_precisions.h"

#ifdef __x86_64__
#define TARGET __attribute__((target("avx2,fma")))
#define BYTES 32
#define SET avx2
#include "_native_precisions.h"

#define TARGET __attribute__((target("avx512f,avx512dq,avx512vl,fma")))
#define BYTES 64
#define SET avx512
#include "_native_precisions.h"
#endif

typedef struct {
    const char *name;
    ptrdiff_t (*e_step[2])(const Problem *); /* in double, in single precision */
    ptrdiff_t (*row_outputs)(const Problem *, const Outputs *);
    ptrdiff_t (*first_pass)(const FirstPass *);
    ptrdiff_t (*incomplete)(const Incomplete *);
    ptrdiff_t (*noisy)(const Noisy *);
    ptrdiff_t (*draw)(int64_t, ptrdiff_t, uint64_t, uint64_t, int64_t *);
} Variant;

static const Variant variants[] = {
#ifdef __x86_64__
    {"avx512", {e_step_avx512_double, e_step_avx512_single}, row_outputs_avx512_double, first_pass_avx512_double,
     incomplete_avx512_double, noisy_avx512_double, draw_avx512_double},
    {"avx2", {e_step_avx2_double, e_step_avx2_single}, row_outputs_avx2_double, first_pass_avx2_double,
     incomplete_avx2_double, noisy_avx2_double, draw_avx2_double},
#endif
    {"plain", {e_step_plain_double, e_step_plain_single}, row_outputs_plain_double, first_pass_plain_double,
     incomplete_plain_double, noisy_plain_double, draw_plain_double},
};

static int supported(const Variant *variant) {
#ifdef __x86_64__
    __builtin_cpu_init();
    if (variant->e_step[0] == e_step_avx512_double)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (variant->e_step[0] == e_step_avx2_double)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return 1;
}

/* The variant ``number`` of those that this processor can run, the widest first; or NULL. */
static const Variant *chosen(int number) {
    for (size_t i = 0; i < sizeof(variants) / sizeof(variants[0]); i++)
        if (supported(&variants[i]) && number-- == 0) return &variants[i];
    return NULL;
}

enum { READ, WRITE, OPTIONAL, WRITE_OPTIONAL }; /* what is OPTIONAL may be of no numbers in place of its shape */
#define ANY (-1)                /* as many as there are */
#define MOST_AXES 3

/* A shape as Python writes it. */
static void written(char *text, size_t size, int axes, const Py_ssize_t *shape) {
    size_t used = (size_t)snprintf(text, size, "(");
    for (int i = 0; i < axes && used < size; i++) {
        const char *after = axes == 1 ? "," : i + 1 < axes ? ", " : "";
        if (shape[i] == ANY)
            used += (size_t)snprintf(text + used, size - used, "any%s", after);
        else
            used += (size_t)snprintf(text + used, size - used, "%zd%s", shape[i], after);
    }
    if (used < size) snprintf(text + used, size - used, ")");
}

/* Whether numbers are of a type as ``struct`` has them: f, d, or q, which has two names; or bytes, B. */
static int is_of(const Py_buffer *view, char type) {
    const char *format = view->format ? view->format : "B";
    if (*format == '@' || *format == '=' || *format == (PY_LITTLE_ENDIAN ? '<' : '>')) format++;
    if (strlen(format) != 1) return 0;
    return *format == type || (type == 'q' && *format == 'l' && view->itemsize == (Py_ssize_t)sizeof(int64_t));
}

/* The memory of an array, if it is what it has to be: else 0, with a ValueError that names it. */
static int take(PyObject *array, Py_buffer *view, const char *name, char type, int use, int axes, const Py_ssize_t *shape) {
    char wanted[100], found[100];
    if (PyObject_GetBuffer(array, view, PyBUF_FULL_RO)) {
        PyErr_Clear();
        PyErr_Format(PyExc_ValueError, "%s must be an array, not %s", name, Py_TYPE(array)->tp_name);
        return 0;
    }
    int fits = view->ndim == axes;
    for (int i = 0; fits && i < axes; i++) fits = shape[i] == ANY || view->shape[i] == shape[i];
    if ((use == OPTIONAL || use == WRITE_OPTIONAL) && view->ndim == 1 && view->shape[0] == 0) fits = 1;
    if (!fits) {
        written(wanted, sizeof(wanted), axes, shape);
        written(found, sizeof(found), view->ndim, view->shape);
        PyErr_Format(PyExc_ValueError, "%s must have the shape %s, not %s", name, wanted, found);
    } else if (!is_of(view, type))
        PyErr_Format(PyExc_ValueError, "%s must hold numbers of type '%c', not '%s'", name, type, view->format ? view->format : "B");
    else if (!PyBuffer_IsContiguous(view, 'C') || (uintptr_t)view->buf % (uintptr_t)view->itemsize)
        PyErr_Format(PyExc_ValueError, "%s must be contiguous and aligned", name);
    else if ((use == WRITE || use == WRITE_OPTIONAL) && view->readonly)
        PyErr_Format(PyExc_ValueError, "%s must be writable", name);
    else
        return 1;
    return 0;
}
#define TAKE(i, name, type, use, axes, ...) take(given[i], &b[i], name, type, use, axes, (Py_ssize_t[MOST_AXES]){__VA_ARGS__})

/* 1, or 0 with a ValueError. */
static int expect(int holds, const char *what) {
    if (!holds) PyErr_SetString(PyExc_ValueError, what);
    return holds;
}

static const Variant *variant_of(int number) {
    const Variant *variant = chosen(number);
    if (!variant) PyErr_Format(PyExc_ValueError, "there is no variant %d", number);
    return variant;
}

static PyObject *done(Py_buffer *b, int count, int fine, ptrdiff_t answer) {
    for (int i = 0; i < count; i++) PyBuffer_Release(&b[i]); /* of what was not taken, too: it is all zeros */
    return fine ? PyLong_FromSsize_t(answer) : NULL;
}

/* Whether ``ends`` rise from above 0 to ``all``. */
static int is_partition(const int64_t *ends, Py_ssize_t count, Py_ssize_t all) {
    int64_t last = 0;
    for (Py_ssize_t i = 0; i < count; last = ends[i++])
        if (ends[i] <= last) return 0;
    return count > 0 && last == all;
}

enum { ROWS, WEIGHTS, SHIFT, SCALE, WHITEN, MEANS, FACTORS, CONSTANTS, PENALTIES, MOST, ENDS, SUMS, OBJECTIVE, PLAIN, SPACE, ARRAYS,
       OF_TAILS = ARRAYS, LATENT, MORE_ARRAYS };

static PyObject *stepped(PyObject *args, int tails) {
    PyObject *given[MORE_ARRAYS];
    Py_buffer b[MORE_ARRAYS] = {{0}};
    PyObject *rest = NULL;
    int number, structure, single_rows, single, skips;
    Py_ssize_t width, factor_size, n = 0, D = 0, K = 0, mixtures = 0;
    ptrdiff_t wanted = 0;
    if (tails) { /* two arrays stand before the space */
        const Py_ssize_t count = PyTuple_Size(args);
        if (!expect(count == 7 + MORE_ARRAYS, "e_step_tails takes two arrays more than e_step")) return NULL;
        given[OF_TAILS] = PyTuple_GetItem(args, count - 3), given[LATENT] = PyTuple_GetItem(args, count - 2);
        PyObject *first = PyTuple_GetSlice(args, 0, count - 3), *last = PyTuple_GetSlice(args, count - 1, count);
        rest = first && last ? PySequence_Concat(first, last) : NULL;
        Py_XDECREF(first), Py_XDECREF(last);
        if (!rest) return NULL;
        args = rest;
    }
    const int parsed = PyArg_ParseTuple(args, "iipppnnOOOOOOOOOOOOOOO", &number, &structure, &single_rows, &single, &skips, &width, &factor_size,
                          &given[0], &given[1], &given[2], &given[3], &given[4], &given[5], &given[6], &given[7],
                          &given[8], &given[9], &given[10], &given[11], &given[12], &given[13], &given[14]);
    Py_XDECREF(rest); /* what it holds, the caller holds, too */
    if (!parsed) return NULL;
    const Variant *variant = variant_of(number);
    if (!variant || !expect(structure >= FULL && structure <= TIED, "there is no such structure")) return NULL;
    const char real = single ? 'f' : 'd';
    int fine = TAKE(ROWS, "rows", single_rows ? 'f' : 'd', READ, 2, ANY, ANY) && TAKE(MEANS, "means", real, READ, 2, ANY, b[ROWS].shape[1])
            && TAKE(ENDS, "ends", 'q', READ, 1, ANY);
    if (fine) n = b[ROWS].shape[0], D = b[ROWS].shape[1], K = b[MEANS].shape[0], mixtures = b[ENDS].shape[0];
    const Py_ssize_t widths[] = {1 + D + D * (D + 1) / 2, 1 + 2 * D, 2 + D, 1 + D}, sizes[] = {D * D, D, 1, 1};
    const int axes = structure == FULL ? 3 : structure == DIAGONAL ? 2 : 1;
    fine = fine && expect(D > 0, "rows must have columns") && expect(width == widths[structure], "width must be the structure's")
        && expect(factor_size == sizes[structure], "factor_size must be the structure's")
        && expect(is_partition(b[ENDS].buf, mixtures, K), "ends must rise to the number of means")
        && TAKE(WEIGHTS, "weights", 'd', OPTIONAL, 1, n)
        && TAKE(SHIFT, "shift", 'd', READ, 1, D) && TAKE(SCALE, "scale", 'd', READ, 1, D)
        && (structure == TIED ? TAKE(WHITEN, "whiten", real, READ, 2, D, D) : TAKE(WHITEN, "whiten", real, READ, 1, 0))
        && TAKE(FACTORS, "precisions_cholesky", real, READ, axes, K, D, D) && TAKE(CONSTANTS, "constants", real, READ, 1, K)
        && TAKE(PENALTIES, "penalties", 'd', READ, 1, K) && TAKE(MOST, "most", 'd', READ, 1, mixtures)
        && TAKE(SUMS, "sums", 'd', WRITE, 2, K, width) && TAKE(OBJECTIVE, "objective", 'd', WRITE, 1, mixtures)
        && TAKE(PLAIN, "plain", 'd', WRITE, 1, mixtures) && TAKE(SPACE, "space", 'B', WRITE, 1, ANY);
    if (tails)
        fine = fine && expect(structure != TIED && !single, "tails are in double precision, and have a factor for each component")
            && TAKE(OF_TAILS, "tails", 'd', READ, 2, K, TAILS) && TAKE(LATENT, "latent", 'd', WRITE, 2, K, 2);
    if (fine) {
        const Problem p = {
            .rows = n, .n_features = D, .mixtures = mixtures, .width = width, .factor_size = factor_size,
            .structure = structure, .single_rows = single_rows, .skips = skips, .data = b[ROWS].buf,
            .weights = b[WEIGHTS].len ? b[WEIGHTS].buf : NULL, .shift = b[SHIFT].buf, .scale = b[SCALE].buf,
            .whiten = structure == TIED ? b[WHITEN].buf : NULL, .means = b[MEANS].buf,
            .precisions_cholesky = b[FACTORS].buf, .constants = b[CONSTANTS].buf, .penalties = b[PENALTIES].buf,
            .most = b[MOST].buf, .ends = b[ENDS].buf, .sums = b[SUMS].buf, .objective = b[OBJECTIVE].buf,
            .plain = b[PLAIN].buf, .space = b[SPACE].buf, .space_bytes = (size_t)b[SPACE].len,
            .tails = tails ? b[OF_TAILS].buf : NULL, .latent = tails ? b[LATENT].buf : NULL,
        };
        Py_BEGIN_ALLOW_THREADS
        wanted = variant->e_step[single](&p);
        Py_END_ALLOW_THREADS
    }
    return done(b, MORE_ARRAYS, fine, wanted);
}

static PyObject *e_step(PyObject *module, PyObject *args) { return stepped(args, 0); }

static PyObject *e_step_tails(PyObject *module, PyObject *args) { return stepped(args, 1); }

static PyObject *row_outputs(PyObject *module, PyObject *args) {
    enum { ROWS, SHIFT, SCALE, WHITEN, MEANS, FACTORS, CONSTANTS, OF_TAILS, LABELS, SCORES, SHARES, SPACE, ARRAYS };
    PyObject *given[ARRAYS];
    Py_buffer b[ARRAYS] = {{0}};
    int number, structure, single_rows, skips;
    Py_ssize_t n = 0, D = 0, K = 0;
    ptrdiff_t wanted = 0;
    if (!PyArg_ParseTuple(args, "iippOOOOOOOOOOOO", &number, &structure, &single_rows, &skips, &given[0], &given[1], &given[2], &given[3],
                          &given[4], &given[5], &given[6], &given[7], &given[8], &given[9], &given[10], &given[11]))
        return NULL;
    const Variant *variant = variant_of(number);
    if (!variant || !expect(structure >= FULL && structure <= TIED, "there is no such structure")) return NULL;
    int fine = TAKE(ROWS, "rows", single_rows ? 'f' : 'd', READ, 2, ANY, ANY)
            && TAKE(MEANS, "means", 'd', READ, 2, ANY, b[ROWS].shape[1]);
    if (fine) n = b[ROWS].shape[0], D = b[ROWS].shape[1], K = b[MEANS].shape[0];
    const Py_ssize_t sizes[] = {D * D, D, 1, 1};
    const int axes = structure == FULL ? 3 : structure == DIAGONAL ? 2 : 1;
    fine = fine && expect(D > 0 && K > 0, "rows must have columns, and there must be components")
        && TAKE(SHIFT, "shift", 'd', READ, 1, D) && TAKE(SCALE, "scale", 'd', READ, 1, D)
        && (structure == TIED ? TAKE(WHITEN, "whiten", 'd', READ, 2, D, D) : TAKE(WHITEN, "whiten", 'd', READ, 1, 0))
        && TAKE(FACTORS, "precisions_cholesky", 'd', READ, axes, K, D, D) && TAKE(CONSTANTS, "constants", 'd', READ, 1, K)
        && TAKE(OF_TAILS, "tails", 'd', OPTIONAL, 2, K, TAILS) && TAKE(LABELS, "labels", 'q', WRITE_OPTIONAL, 1, n)
        && TAKE(SCORES, "scores", 'd', WRITE_OPTIONAL, 1, n) && TAKE(SHARES, "shares", 'd', WRITE_OPTIONAL, 2, n, K)
        && TAKE(SPACE, "space", 'B', WRITE, 1, ANY)
        && expect(structure != TIED || !b[OF_TAILS].len, "with tails there is a factor for each component");
    if (fine) {
        const int64_t ends[] = {K};
        const Problem p = {
            .rows = n, .n_features = D, .mixtures = 1, .factor_size = sizes[structure], .structure = structure,
            .single_rows = single_rows, .skips = skips, .data = b[ROWS].buf, .shift = b[SHIFT].buf, .scale = b[SCALE].buf,
            .whiten = structure == TIED ? b[WHITEN].buf : NULL, .means = b[MEANS].buf, .precisions_cholesky = b[FACTORS].buf,
            .constants = b[CONSTANTS].buf, .ends = ends, .tails = b[OF_TAILS].len ? b[OF_TAILS].buf : NULL,
            .space = b[SPACE].buf, .space_bytes = (size_t)b[SPACE].len,
        };
        const Outputs out = {
            .labels = b[LABELS].len ? b[LABELS].buf : NULL, .scores = b[SCORES].len ? b[SCORES].buf : NULL,
            .shares = b[SHARES].len ? b[SHARES].buf : NULL,
        };
        Py_BEGIN_ALLOW_THREADS
        wanted = variant->row_outputs(&p, &out);
        Py_END_ALLOW_THREADS
    }
    return done(b, ARRAYS, fine, wanted);
}

static PyObject *first_pass(PyObject *module, PyObject *args) {
    PyObject *given[8];
    Py_buffer b[8] = {{0}};
    int number, single_rows, pairs;
    Py_ssize_t D = 0;
    ptrdiff_t wanted = 0;
    if (!PyArg_ParseTuple(args, "ippOOOOOOOO", &number, &single_rows, &pairs, &given[0], &given[1], &given[2], &given[3],
                          &given[4], &given[5], &given[6], &given[7]))
        return NULL;
    const Variant *variant = variant_of(number);
    if (!variant) return NULL;
    int fine = TAKE(0, "rows", single_rows ? 'f' : 'd', READ, 2, ANY, ANY);
    if (fine) D = b[0].shape[1];
    fine = fine && expect(D > 0, "rows must have columns") && TAKE(1, "weights", 'd', OPTIONAL, 1, b[0].shape[0])
        && TAKE(2, "totals", 'd', WRITE, 1, 2) && TAKE(3, "mean", 'd', WRITE, 1, D)
        && TAKE(4, "scatter", 'd', WRITE, pairs ? 2 : 1, D, D) && TAKE(5, "low", 'd', WRITE, 1, D)
        && TAKE(6, "high", 'd', WRITE, 1, D) && TAKE(7, "space", 'B', WRITE, 1, ANY);
    if (fine) {
        const FirstPass s = {
            .rows = b[0].shape[0], .n_features = D, .single_rows = single_rows, .pairs = pairs, .data = b[0].buf,
            .weights = b[1].len ? b[1].buf : NULL, .totals = b[2].buf, .mean = b[3].buf, .scatter = b[4].buf,
            .low = b[5].buf, .high = b[6].buf, .space = b[7].buf, .space_bytes = (size_t)b[7].len,
        };
        Py_BEGIN_ALLOW_THREADS
        wanted = variant->first_pass(&s);
        Py_END_ALLOW_THREADS
    }
    return done(b, 8, fine, wanted);
}

static PyObject *incomplete(PyObject *module, PyObject *args) {
    PyObject *given[13];
    Py_buffer b[13] = {{0}};
    int number, single_rows;
    double most;
    Py_ssize_t n = 0, D = 0, K = 0;
    ptrdiff_t wanted = 0;
    if (!PyArg_ParseTuple(args, "ipdOOOOOOOOOOOOO", &number, &single_rows, &most, &given[0], &given[1], &given[2],
                          &given[3], &given[4], &given[5], &given[6], &given[7], &given[8], &given[9], &given[10],
                          &given[11], &given[12]))
        return NULL;
    const Variant *variant = variant_of(number);
    if (!variant) return NULL;
    int fine = TAKE(0, "rows", single_rows ? 'f' : 'd', READ, 2, ANY, ANY)
            && TAKE(5, "means", 'd', READ, 2, b[0].shape[1], ANY);
    if (fine) n = b[0].shape[0], D = b[0].shape[1], K = b[5].shape[1];
    fine = fine && expect(D > 0, "rows must have columns") && expect(K % MOST_LANES == 0, "components must fill vectors")
        && TAKE(1, "weights", 'd', OPTIONAL, 1, n) && TAKE(2, "shift", 'd', READ, 1, D) && TAKE(3, "scale", 'd', READ, 1, D)
        && TAKE(4, "ends", 'q', READ, 1, ANY) && expect(is_partition(b[4].buf, b[4].shape[0], n), "ends must rise to the number of rows")
        && TAKE(6, "covariances", 'd', READ, 3, D, D, K)
        && TAKE(7, "constants", 'd', READ, 1, K) && TAKE(8, "boost", 'd', READ, 1, K)
        && TAKE(9, "sums", 'd', WRITE, 2, 1 + D + D * (D + 1) / 2, K)
        && TAKE(10, "objective", 'd', WRITE, 1, 1) && TAKE(11, "plain", 'd', WRITE, 1, 1)
        && TAKE(12, "space", 'B', WRITE, 1, ANY);
    if (fine) {
        const Incomplete p = {
            .n_features = D, .components = K, .patterns = b[4].shape[0], .single_rows = single_rows,
            .data = b[0].buf, .weights = b[1].len ? b[1].buf : NULL, .shift = b[2].buf, .scale = b[3].buf,
            .ends = b[4].buf, .means = b[5].buf, .covariances = b[6].buf, .constants = b[7].buf, .boost = b[8].buf,
            .most = most, .sums = b[9].buf, .objective = b[10].buf, .plain = b[11].buf, .space = b[12].buf,
            .space_bytes = (size_t)b[12].len,
        };
        Py_BEGIN_ALLOW_THREADS
        wanted = variant->incomplete(&p);
        Py_END_ALLOW_THREADS
    }
    return done(b, 13, fine, wanted);
}

static PyObject *noisy(PyObject *module, PyObject *args) {
    PyObject *given[20];
    Py_buffer b[20] = {{0}};
    int number, single_rows, pairs, full;
    double most;
    Py_ssize_t n = 0, D = 0, K = 0, size = 0;
    ptrdiff_t wanted = 0;
    if (!PyArg_ParseTuple(args, "ipppdOOOOOOOOOOOOOOOOOOOO", &number, &single_rows, &pairs, &full, &most, &given[0], &given[1],
                          &given[2], &given[3], &given[4], &given[5], &given[6], &given[7], &given[8], &given[9], &given[10],
                          &given[11], &given[12], &given[13], &given[14], &given[15], &given[16], &given[17], &given[18],
                          &given[19]))
        return NULL;
    const Variant *variant = variant_of(number);
    if (!variant) return NULL;
    int fine = TAKE(0, "rows", single_rows ? 'f' : 'd', READ, 2, ANY, ANY)
            && TAKE(5, "means", 'd', READ, 2, ANY, ANY);
    if (fine) n = b[0].shape[0], D = b[0].shape[1], K = b[5].shape[0], size = b[5].shape[1];
    fine = fine && expect(D > 0 && K > 0, "rows must have columns, and there must be components")
        && expect(size == (full ? (D + 3) / 4 * 4 : D), "means must have columns as rows, or the next multiple of 4")
        && expect(full || !pairs, "variances can't be those of components whose noise is covariances")
        && (pairs ? TAKE(1, "noise", 'd', READ, 3, n, D, D) : TAKE(1, "noise", 'd', full ? READ : OPTIONAL, 2, n, D))
        && TAKE(2, "weights", 'd', OPTIONAL, 1, n) && TAKE(3, "shift", 'd', READ, 1, D) && TAKE(4, "scale", 'd', READ, 1, D)
        && (full ? TAKE(6, "covariances", 'd', READ, 3, K, size, size) : TAKE(6, "variances", 'd', READ, 2, K, D))
        && TAKE(7, "constants", 'd', READ, 1, K) && TAKE(8, "boost", 'd', READ, 1, K)
        && TAKE(9, "least", 'd', READ, 1, K) && TAKE(10, "sums", 'd', WRITE, 2, K, 1 + D + (full ? D * (D + 1) / 2 : D))
        && TAKE(11, "objective", 'd', WRITE, 1, 1) && TAKE(12, "plain", 'd', WRITE, 1, 1)
        && TAKE(13, "white", 'd', OPTIONAL, 3, K, size, size);
    int bounded = fine && b[13].len;
    Py_ssize_t all = bounded ? K : 0, more = bounded ? size : 0;
    fine = fine && expect(!bounded || (full && !pairs), "bounds are those of covariances with variances as noise")
        && TAKE(14, "middle", 'd', READ, 1, more) && TAKE(15, "slopes", 'd', READ, 2, all, more)
        && TAKE(16, "under", 'd', READ, 1, more) && TAKE(17, "ceilings", 'd', READ, 1, all)
        && TAKE(18, "cuts", 'd', READ, 1, all) && TAKE(19, "space", 'B', WRITE, 1, ANY);
    if (fine) {
        const Noisy p = {
            .rows = n, .n_features = D, .size = size, .components = K, .single_rows = single_rows, .pairs = pairs, .full = full,
            .data = b[0].buf, .noise = b[1].len ? b[1].buf : NULL, .weights = b[2].len ? b[2].buf : NULL, .shift = b[3].buf,
            .scale = b[4].buf, .means = b[5].buf, .covariances = b[6].buf, .constants = b[7].buf, .boost = b[8].buf,
            .least = b[9].buf, .most = most, .sums = b[10].buf, .objective = b[11].buf, .plain = b[12].buf,
            .white = bounded ? b[13].buf : NULL, .middle = b[14].buf, .slopes = b[15].buf, .under = b[16].buf,
            .ceilings = b[17].buf, .cuts = b[18].buf, .space = b[19].buf, .space_bytes = (size_t)b[19].len,
        };
        Py_BEGIN_ALLOW_THREADS
        wanted = variant->noisy(&p);
        Py_END_ALLOW_THREADS
    }
    return done(b, 20, fine, wanted);
}

static PyObject *draw(PyObject *module, PyObject *args) {
    PyObject *given[1];
    Py_buffer b[1] = {{0}};
    int number;
    long long start;
    unsigned long long seed, least;
    ptrdiff_t count = 0;
    if (!PyArg_ParseTuple(args, "iLKKO", &number, &start, &seed, &least, &given[0])) return NULL;
    const Variant *variant = variant_of(number);
    if (!variant) return NULL;
    int fine = TAKE(0, "numbers", 'q', WRITE, 1, ANY);
    if (fine) {
        Py_BEGIN_ALLOW_THREADS
        count = variant->draw(start, b[0].shape[0], seed, least, b[0].buf);
        Py_END_ALLOW_THREADS
    }
    return done(b, 1, fine, count);
}

static PyObject *names(PyObject *module, PyObject *ignored) {
    PyObject *list = PyList_New(0);
    for (int number = 0; list && chosen(number); number++) {
        PyObject *name = PyUnicode_FromString(chosen(number)->name);
        if (!name || PyList_Append(list, name)) Py_CLEAR(list);
        Py_XDECREF(name);
    }
    return list;
}

static PyMethodDef methods[] = {
    {"e_step", e_step, METH_VARARGS, "Add a block's statistics; see dgmm.native."},
    {"e_step_tails", e_step_tails, METH_VARARGS, "The same where components are t distributions; see dgmm.native."},
    {"row_outputs", row_outputs, METH_VARARGS, "What a mixture says of each row; see dgmm.native."},
    {"first_pass", first_pass, METH_VARARGS, "Take a block's moments and extremes; see dgmm.native."},
    {"incomplete", incomplete, METH_VARARGS, "Add the statistics of rows with holes; see dgmm.native."},
    {"noisy", noisy, METH_VARARGS, "Add the statistics of rows with known errors; see dgmm.native."},
    {"draw", draw, METH_VARARGS, "Row numbers by their hash; see dgmm.native."},
    {"variants", names, METH_NOARGS, "The vector instructions that can be used, the widest first."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_native", "The compiled kernel.", 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&module); }
