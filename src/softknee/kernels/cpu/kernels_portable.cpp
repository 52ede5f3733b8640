#include "kernels.h"
#define SOFTKNEE_ISA portable
#include "simd_portable.h"
#include "kernels_body.h"

const softknee::Loops* const softknee::loops_portable = softknee::portable::table;
const softknee::SliceLoops* const softknee::normalizers_portable = softknee::portable::normalizers;
const softknee::Primitive* const softknee::primitives_portable = softknee::portable::primitives;
