// Half precision, for kernels that run on a CPU; the conversions are the CPU library's own.
#pragma once

#pragma push_macro("SIDFAST_ISA")
#pragma push_macro("SIDFAST_INLINE")
#undef SIDFAST_ISA
#undef SIDFAST_INLINE
#define SIDFAST_ISA emulated
#define SIDFAST_ISA_LEVEL 0
#include "base/simd.h"
#undef SIDFAST_ISA
#undef SIDFAST_INLINE
#pragma pop_macro("SIDFAST_ISA")
#pragma pop_macro("SIDFAST_INLINE")

template <class T>
float sidfast_widened(uint16_t bits) {
  T lanes[sidfast::emulated::kLanes] = {{bits}};
  return sidfast::emulated::load(lanes).v[0];
}
template <class T>
T sidfast_narrowed(float value) {
  T lanes[sidfast::emulated::kLanes];
  sidfast::emulated::store(lanes, sidfast::emulated::F(value));
  return lanes[0];
}

using __half = sidfast::float16;

inline float __half2float(__half x) { return sidfast_widened<__half>(x.bits); }
inline __half __float2half_rn(float x) { return sidfast_narrowed<__half>(x); }
inline __half __ushort_as_half(uint16_t bits) { return {bits}; }
inline uint16_t __half_as_ushort(__half x) { return x.bits; }
