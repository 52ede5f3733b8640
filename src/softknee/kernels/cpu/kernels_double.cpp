#include "kernels.h"
#define SOFTKNEE_ISA binary64
#include "double.h"
#include "kernels_body.h"

const softknee::Loops* const softknee::loops_double = softknee::binary64::table<double>;
