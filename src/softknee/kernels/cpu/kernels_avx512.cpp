#include "kernels.h"
#define SOFTKNEE_ISA avx512
#include "simd_avx512.h"
#include "kernels_body.h"

const softknee::Loops* const softknee::loops_avx512 = softknee::avx512::table;
const softknee::SliceLoops* const softknee::normalizers_avx512 = softknee::avx512::normalizers;
const softknee::Primitive* const softknee::primitives_avx512 = softknee::avx512::primitives;
