// Thin vectors over intrinsics: F holds floats, U holds uint32 words, kLanes of each.
//
// A kernel file is compiled once per instruction set with SIDFAST_ISA naming its namespace and
// SIDFAST_ISA_LEVEL choosing the vectors below. Everything included by a kernel file lives in
// that namespace, so no inline function compiled for a wider CPU can be linked into another level.
// All operations are lane-pure and correctly rounded, fma included: every level gives equal bits.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "base/dtype.h"
#include "base/error.h"

#define SIDFAST_INLINE inline __attribute__((always_inline))

#if SIDFAST_ISA_LEVEL == 2
#include "base/simd_avx512.h"
#elif SIDFAST_ISA_LEVEL == 1
#include "base/simd_avx2.h"
#else
#include "base/simd_generic.h"
#endif

namespace sidfast::SIDFAST_ISA {

SIDFAST_INLINE int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
SIDFAST_INLINE int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
SIDFAST_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A short tail travels through a full-width buffer, so that it meets the same vector code.
template <class T>
SIDFAST_INLINE F load_first(const T* source, int64_t count) {
  T lanes[kLanes] = {};
  std::memcpy(lanes, source, static_cast<size_t>(count) * sizeof(T));
  return load(lanes);
}

template <class T>
SIDFAST_INLINE void store_first(T* target, F value, int64_t count) {
  T lanes[kLanes];
  store(lanes, value);
  std::memcpy(target, lanes, static_cast<size_t>(count) * sizeof(T));
}

// then(T{}) with T the storage type that `dtype` names.
template <class Then>
Status typed(Dtype dtype, const Then& then) {
  switch (dtype) {
    case Dtype::float32:
      return then(float{});
    case Dtype::bfloat16:
      return then(bfloat16{});
    case Dtype::float16:
      return then(float16{});
  }
  return {Code::unsupported, "dtype is none of float32, bfloat16, float16"};
}

}  // namespace sidfast::SIDFAST_ISA
