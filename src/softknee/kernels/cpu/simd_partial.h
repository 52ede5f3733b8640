// Partial vectors by way of a buffer, for instruction sets without masked memory access.
#pragma once

namespace softknee {
namespace SOFTKNEE_ISA {

template <class T>
SOFTKNEE_INLINE V load(const T* p, int count) {
  T buffer[lanes] = {};
  for (int i = 0; i < count; ++i) buffer[i] = p[i];
  return load(buffer);
}
template <class T>
SOFTKNEE_INLINE void store(T* p, V a, int count) {
  T buffer[lanes];
  store(buffer, a);
  for (int i = 0; i < count; ++i) p[i] = buffer[i];
}

}  // namespace SOFTKNEE_ISA
}  // namespace softknee
