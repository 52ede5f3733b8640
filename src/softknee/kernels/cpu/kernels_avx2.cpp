#include "kernels.h"
#define SOFTKNEE_ISA avx2
#include "simd_avx2.h"
#include "kernels_body.h"

const softknee::Loops* const softknee::loops_avx2 = softknee::avx2::table;
const softknee::SliceLoops* const softknee::normalizers_avx2 = softknee::avx2::normalizers;
const softknee::Primitive* const softknee::primitives_avx2 = softknee::avx2::primitives;
