/* The kernel in both precisions, and the first pass in double, for one kind of vector: BYTES, TARGET
   and SET, its name. */

#define REAL double
#define WHOLE int64_t
#define MANTISSA 52
#define BIAS 1023
#define TERMS(single, double) (double)
#define FN(name) WITH(name, SET, double)
#include "_native_kernel.h"
#include "_native_incomplete.h"
#include "_native_noisy.h"
#include "_native_first_pass.h"
#undef REAL
#undef WHOLE
#undef MANTISSA
#undef BIAS
#undef TERMS
#undef FN

#define REAL float
#define WHOLE int32_t
#define MANTISSA 23
#define BIAS 127
#define TERMS(single, double) (single)
#define FN(name) WITH(name, SET, single)
#include "_native_kernel.h"
#undef REAL
#undef WHOLE
#undef MANTISSA
#undef BIAS
#undef TERMS
#undef FN

#undef TARGET
#undef BYTES
#undef SET
