/* The compiled twin of kernel.e_step: see native.py for what goes in and out, _native_kernel.h for
   the arithmetic.  Plain C with GCC's and Clang's vector extensions; one build serves every machine
   of its architecture, as the widest vectors that the processor has are chosen when it is loaded. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define TILE_BYTES (320 << 10) /* what a tile's arrays may take, of a second-level cache of 512 KiB */
#define SMALLEST_TILE 64 /* rows, whatever they take */
#define LARGEST_TILE 512

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
} Problem;

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
    int (*e_step[2])(const Problem *); /* in double, in single precision */
} Variant;

static const Variant variants[] = {
#ifdef __x86_64__
    {"avx512", {e_step_avx512_double, e_step_avx512_single}},
    {"avx2", {e_step_avx2_double, e_step_avx2_single}},
#endif
    {"plain", {e_step_plain_double, e_step_plain_single}},
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

enum { DATA, WEIGHTS, SHIFT, SCALE, WHITEN, MEANS, FACTORS, CONSTANTS, PENALTIES, MOST, ENDS, SUMS, OBJECTIVE, PLAIN, BUFFERS };

static PyObject *e_step(PyObject *module, PyObject *args) {
    Py_buffer b[BUFFERS];
    int number, structure, single_rows, single, failed;
    Problem p = {0};
    if (!PyArg_ParseTuple(args, "iippnny*y*y*y*y*y*y*y*y*y*y*w*w*w*", &number, &structure, &single_rows, &single, &p.width, &p.factor_size,
                          &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &b[6], &b[7], &b[8], &b[9], &b[10], &b[11],
                          &b[12], &b[13]))
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
    const Variant *variant = chosen(number);
    Py_BEGIN_ALLOW_THREADS
    failed = variant ? variant->e_step[single](&p) : 0;
    Py_END_ALLOW_THREADS
    for (int i = 0; i < BUFFERS; i++) PyBuffer_Release(&b[i]);
    if (!variant) return PyErr_Format(PyExc_ValueError, "no variant %d", number);
    if (failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
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
    {"variants", names, METH_NOARGS, "The vector instructions that can be used, the widest first."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_native", "The compiled kernel.", 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&module); }
