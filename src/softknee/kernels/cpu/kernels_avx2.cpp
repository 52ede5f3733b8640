#include "kernels.h"
#define SOFTKNEE_ISA avx2
#include "simd_avx2.h"
#include "math.h"
#include "kernels_body.h"

SOFTKNEE_LOOPS(avx2)
