// The vectors of base/simd.h for one CUDA thread: a single lane. Multiplication and addition fuse
// only where the source says fma (the library is compiled with --fmad=false), so that the bits are
// those of a CPU.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "base/dtype.h"
#include "base/error.h"

#define SIDFAST_ISA cuda
#define SIDFAST_INLINE __device__ __forceinline__

namespace sidfast::cuda {

struct U {
  uint32_t v;
  U() = default;
  SIDFAST_INLINE explicit U(uint32_t x) : v(x) {}
};

struct F {
  float v;
  F() = default;
  SIDFAST_INLINE explicit F(float x) : v(x) {}
};

SIDFAST_INLINE U operator+(U a, U b) { return U(a.v + b.v); }
SIDFAST_INLINE U operator-(U a, U b) { return U(a.v - b.v); }
SIDFAST_INLINE U operator&(U a, U b) { return U(a.v & b.v); }
SIDFAST_INLINE U operator^(U a, U b) { return U(a.v ^ b.v); }
template <int bits>
SIDFAST_INLINE U shift_left(U a) { return U(a.v << bits); }
template <int bits>
SIDFAST_INLINE U shift_right(U a) { return U(a.v >> bits); }
template <int bits>
SIDFAST_INLINE U shift_right_signed(U a) {
  return U(static_cast<uint32_t>(static_cast<int32_t>(a.v) >> bits));
}

SIDFAST_INLINE F operator-(F a, F b) { return F(a.v - b.v); }
SIDFAST_INLINE F operator*(F a, F b) { return F(a.v * b.v); }
SIDFAST_INLINE F fma(F a, F b, F c) { return F(fmaf(a.v, b.v, c.v)); }
SIDFAST_INLINE F positive_part(F a) { return F(a.v > 0.0f ? a.v : 0.0f); }
SIDFAST_INLINE F square_root(F a) { return F(sqrtf(a.v)); }
SIDFAST_INLINE F as_float(U a) { return F(__uint_as_float(a.v)); }
SIDFAST_INLINE U as_words(F a) { return U(__float_as_uint(a.v)); }
SIDFAST_INLINE F from_signed(U a) { return F(static_cast<float>(static_cast<int32_t>(a.v))); }

// Where the top bit of `mask` is set a, else b.
SIDFAST_INLINE F select(U mask, F a, F b) { return mask.v >> 31 ? a : b; }

}  // namespace sidfast::cuda
