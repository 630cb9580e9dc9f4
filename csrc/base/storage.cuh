// Runs of stored values as floats and back, in one access where they are aligned.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "base/lane.cuh"

namespace sidfast::cuda {

inline constexpr int kAccessBytes = 16;

template <class T>
inline constexpr int kAccess = kAccessBytes / static_cast<int>(sizeof(T));  // values in one access

SIDFAST_INLINE float widen(float x) { return x; }
SIDFAST_INLINE float widen(bfloat16 x) {
  return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
}
SIDFAST_INLINE float widen(float16 x) { return __half2float(__ushort_as_half(x.bits)); }

SIDFAST_INLINE void narrow(float x, float* out) { *out = x; }
SIDFAST_INLINE void narrow(float x, bfloat16* out) {
  out->bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
SIDFAST_INLINE void narrow(float x, float16* out) {
  out->bits = __half_as_ushort(__float2half_rn(x));
}

template <class T, int n>
struct alignas(n * sizeof(T)) Aligned {
  T v[n];
};

// n values at p, which is aligned to n * sizeof(T), or to kAccessBytes if that is less.
template <int n, class T>
SIDFAST_INLINE void load(const T* p, float* x) {
  constexpr int kOnce = n < kAccess<T> ? n : kAccess<T>;
#pragma unroll
  for (int i = 0; i < n; i += kOnce) {
    const auto run = *reinterpret_cast<const Aligned<T, kOnce>*>(p + i);
#pragma unroll
    for (int j = 0; j < kOnce; ++j) x[i + j] = widen(run.v[j]);
  }
}

template <int n, class T>
SIDFAST_INLINE void store(T* p, const float* x) {
  constexpr int kOnce = n < kAccess<T> ? n : kAccess<T>;
#pragma unroll
  for (int i = 0; i < n; i += kOnce) {
    Aligned<T, kOnce> run;
#pragma unroll
    for (int j = 0; j < kOnce; ++j) narrow(x[i + j], &run.v[j]);
    *reinterpret_cast<Aligned<T, kOnce>*>(p + i) = run;
  }
}

// The first `count` of n values; the others are 0. `aligned` tells what load() asks.
template <int n, class T>
SIDFAST_INLINE void load_first(const T* p, int64_t count, bool aligned, float* x) {
  if (aligned && count >= n) {
    load<n>(p, x);
    return;
  }
#pragma unroll
  for (int i = 0; i < n; ++i) x[i] = i < count ? widen(p[i]) : 0.0f;
}

template <int n, class T>
SIDFAST_INLINE void store_first(T* p, int64_t count, bool aligned, const float* x) {
  if (aligned && count >= n) {
    store<n>(p, x);
    return;
  }
#pragma unroll
  for (int i = 0; i < n; ++i) {
    if (i < count) narrow(x[i], p + i);
  }
}

// Whether every run of kAccess values in rows of `size` elements at p starts aligned.
template <class T>
bool rows_aligned(const T* p, int64_t size) {
  return reinterpret_cast<uintptr_t>(p) % kAccessBytes == 0 && size % kAccess<T> == 0;
}

// A tensor whose storage type is known when the kernel runs.
struct Values {
  void* p;
  Dtype dtype;
};

// then(pointer) with the pointer's type.
template <class Then>
SIDFAST_INLINE void typed(const Values& values, const Then& then) {
  switch (values.dtype) {
    case Dtype::float32:
      return then(static_cast<float*>(values.p));
    case Dtype::bfloat16:
      return then(static_cast<bfloat16*>(values.p));
    case Dtype::float16:
      return then(static_cast<float16*>(values.p));
  }
}

}  // namespace sidfast::cuda
