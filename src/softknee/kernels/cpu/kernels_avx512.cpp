#include "kernels.h"
#define SOFTKNEE_ISA avx512
#include "simd_avx512.h"
#include "math.h"
#include "kernels_body.h"

SOFTKNEE_LOOPS(avx512)
