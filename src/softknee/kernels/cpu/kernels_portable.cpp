#include "kernels.h"
#define SOFTKNEE_ISA portable
#include "simd_portable.h"
#include "math.h"
#include "kernels_body.h"

SOFTKNEE_LOOPS(portable)
