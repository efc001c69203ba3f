/* The compiled twins of kernel.e_step and of what first_pass.py does with a block: see native.py for what
   goes in and out, _native_kernel.h and _native_survey.h for the arithmetic.  Plain C with GCC's and Clang's vector extensions; one build serves every machine
   of its architecture, as the widest vectors that the processor has are chosen when it is loaded. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#define TILE_BYTES (320 << 10) /* what a tile's arrays may take, of a second-level cache of 512 KiB */
#define SMALLEST_TILE 64 /* rows, whatever they take */
#define LARGEST_TILE 512
#define SURVEY_BYTES (128 << 10) /* the same of the first pass */
#define LARGEST_SURVEY_TILE 4096
#define UNUSABLE (-1)            /* what the first pass says of a block with a NaN and the like */
#define ALIGNMENT 64             /* of a tile's arrays, in bytes */

enum { FULL, DIAGONAL, SPHERICAL, TIED }; /* as native.CODES */

typedef struct {
    ptrdiff_t rows, dims, forms, width, factor_size;
    int structure, single_rows;
    const void *data;                                        /* (rows, dims), float or double; */
    const double *weights, *shift, *scale;                   /* (rows) or NULL, (dims), (dims) */
    const void *whiten;                                      /* (dims, dims), for tied, or NULL */
    const void *means, *factors, *constants;                 /* for all components of all forms */
    const double *penalties, *most;                          /* (all), (forms): the largest of each */
    const int64_t *ends;                                     /* (forms), one past its last component */
    double *sums, *objective, *plain;                        /* (all, width), (forms), (forms) */
    void *space;                                             /* for tiles, and how much of it there is */
    size_t space_bytes;
} Problem;

typedef struct {
    ptrdiff_t rows, dims;
    int single_rows, pairs;                  /* whether products of columns are wanted, or squares only */
    const void *data;                        /* (rows, dims), float or double; */
    const double *weights;                   /* (rows) or NULL */
    double *totals, *mean, *scatter;         /* (2), rows that have a weight and its sum; (dims); (dims, dims) or (dims) */
    double *low, *high;                      /* (dims) */
    void *space;
    size_t space_bytes;
} Survey;

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
    ptrdiff_t (*survey)(const Survey *);
    ptrdiff_t (*draw)(int64_t, ptrdiff_t, uint64_t, uint64_t, int64_t *);
} Variant;

static const Variant variants[] = {
#ifdef __x86_64__
    {"avx512", {e_step_avx512_double, e_step_avx512_single}, survey_avx512_double, draw_avx512_double},
    {"avx2", {e_step_avx2_double, e_step_avx2_single}, survey_avx2_double, draw_avx2_double},
#endif
    {"plain", {e_step_plain_double, e_step_plain_single}, survey_plain_double, draw_plain_double},
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

enum { DATA, WEIGHTS, SHIFT, SCALE, WHITEN, MEANS, FACTORS, CONSTANTS, PENALTIES, MOST, ENDS, SUMS, OBJECTIVE, PLAIN, SPACE, BUFFERS };

static PyObject *e_step(PyObject *module, PyObject *args) {
    Py_buffer b[BUFFERS];
    int number, structure, single_rows, single;
    ptrdiff_t wanted = 0;
    Problem p = {0};
    if (!PyArg_ParseTuple(args, "iippnny*y*y*y*y*y*y*y*y*y*y*w*w*w*w*", &number, &structure, &single_rows, &single, &p.width, &p.factor_size,
                          &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &b[6], &b[7], &b[8], &b[9], &b[10], &b[11],
                          &b[12], &b[13], &b[14]))
        return NULL;
    p.structure = structure, p.single_rows = single_rows;
    p.dims = b[SHIFT].len / (ptrdiff_t)sizeof(double);
    p.rows = b[DATA].len / (p.dims * (ptrdiff_t)(single_rows ? sizeof(float) : sizeof(double)));
    p.forms = b[ENDS].len / (ptrdiff_t)sizeof(int64_t);
    p.data = b[DATA].buf, p.weights = b[WEIGHTS].len ? b[WEIGHTS].buf : NULL;
    p.whiten = b[WHITEN].len ? b[WHITEN].buf : NULL;
    p.shift = b[SHIFT].buf, p.scale = b[SCALE].buf;
    p.means = b[MEANS].buf, p.factors = b[FACTORS].buf;
    p.constants = b[CONSTANTS].buf, p.penalties = b[PENALTIES].buf;
    p.most = b[MOST].buf, p.ends = b[ENDS].buf;
    p.sums = b[SUMS].buf, p.objective = b[OBJECTIVE].buf, p.plain = b[PLAIN].buf;
    p.space = b[SPACE].buf, p.space_bytes = (size_t)b[SPACE].len;
    const Variant *variant = chosen(number);
    Py_BEGIN_ALLOW_THREADS
    wanted = variant ? variant->e_step[single](&p) : 0;
    Py_END_ALLOW_THREADS
    for (int i = 0; i < BUFFERS; i++) PyBuffer_Release(&b[i]);
    if (!variant) return PyErr_Format(PyExc_ValueError, "no variant %d", number);
    return PyLong_FromSsize_t(wanted);
}

static PyObject *survey(PyObject *module, PyObject *args) {
    Py_buffer b[8];
    int number;
    ptrdiff_t wanted = 0;
    Survey s = {0};
    if (!PyArg_ParseTuple(args, "ippy*y*w*w*w*w*w*w*", &number, &s.single_rows, &s.pairs, &b[0], &b[1], &b[2], &b[3],
                          &b[4], &b[5], &b[6], &b[7]))
        return NULL;
    s.dims = b[3].len / (ptrdiff_t)sizeof(double);
    s.rows = b[0].len / (s.dims * (ptrdiff_t)(s.single_rows ? sizeof(float) : sizeof(double)));
    s.data = b[0].buf, s.weights = b[1].len ? b[1].buf : NULL;
    s.totals = b[2].buf, s.mean = b[3].buf, s.scatter = b[4].buf, s.low = b[5].buf, s.high = b[6].buf;
    s.space = b[7].buf, s.space_bytes = (size_t)b[7].len;
    const Variant *variant = chosen(number);
    Py_BEGIN_ALLOW_THREADS
    wanted = variant ? variant->survey(&s) : 0;
    Py_END_ALLOW_THREADS
    for (int i = 0; i < 8; i++) PyBuffer_Release(&b[i]);
    if (!variant) return PyErr_Format(PyExc_ValueError, "no variant %d", number);
    return PyLong_FromSsize_t(wanted);
}

static PyObject *draw(PyObject *module, PyObject *args) {
    Py_buffer b;
    int number;
    long long start;
    unsigned long long seed, least;
    ptrdiff_t found = 0;
    if (!PyArg_ParseTuple(args, "iLKKw*", &number, &start, &seed, &least, &b)) return NULL;
    const Variant *variant = chosen(number);
    Py_BEGIN_ALLOW_THREADS
    if (variant) found = variant->draw(start, b.len / (ptrdiff_t)sizeof(int64_t), seed, least, b.buf);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&b);
    if (!variant) return PyErr_Format(PyExc_ValueError, "no variant %d", number);
    return PyLong_FromSsize_t(found);
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
    {"survey", survey, METH_VARARGS, "Take a block's moments and extremes; see dgmm.native."},
    {"draw", draw, METH_VARARGS, "Row numbers by their hash; see dgmm.native."},
    {"variants", names, METH_NOARGS, "The vector instructions that can be used, the widest first."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_native", "The compiled kernel.", 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&module); }
