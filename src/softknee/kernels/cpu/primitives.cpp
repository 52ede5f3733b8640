// `softknee_primitive`: one primitive over contiguous memory, on the instruction set that is named, so that a test can
// hold each of them to what math.h states.
#include <string.h>

#include "kernels.h"

extern "C" {

// kind: 0 float32, 1 float16, 2 bfloat16. Returns 0, or 1 for a name or an instruction set that is not there. The caller
// answers for the processor.
__attribute__((visibility("default"))) int softknee_primitive(const char* isa, const char* name, int kind, int64_t n,
                                                              const void* in, void* out) {
  using namespace softknee;
  const Primitive* each = nullptr;
#if defined(__x86_64__)
  if (strcmp(isa, "avx512") == 0) each = primitives_avx512;
  if (strcmp(isa, "avx2") == 0) each = primitives_avx2;
#endif
  if (strcmp(isa, "portable") == 0) each = primitives_portable;
  for (; each != nullptr && each->name != nullptr; ++each) {
    if (strcmp(each->name, name) != 0) continue;
    each->loops[kind](n, &in, &out, nullptr);
    return 0;
  }
  return 1;
}
}
