// AVX2 + FMA + F16C: 8 lanes.
#pragma once

#include <immintrin.h>

namespace sidfast::SIDFAST_ISA {

inline constexpr int kLanes = 8;

struct U {
  __m256i v;
  U() = default;
  SIDFAST_INLINE U(__m256i x) : v(x) {}
  SIDFAST_INLINE explicit U(uint32_t x) : v(_mm256_set1_epi32(static_cast<int>(x))) {}
};

struct F {
  __m256 v;
  F() = default;
  SIDFAST_INLINE F(__m256 x) : v(x) {}
  SIDFAST_INLINE explicit F(float x) : v(_mm256_set1_ps(x)) {}
};

SIDFAST_INLINE U operator+(U a, U b) { return _mm256_add_epi32(a.v, b.v); }
SIDFAST_INLINE U operator-(U a, U b) { return _mm256_sub_epi32(a.v, b.v); }
SIDFAST_INLINE U operator&(U a, U b) { return _mm256_and_si256(a.v, b.v); }
SIDFAST_INLINE U operator|(U a, U b) { return _mm256_or_si256(a.v, b.v); }
SIDFAST_INLINE U operator^(U a, U b) { return _mm256_xor_si256(a.v, b.v); }
template <int bits>
SIDFAST_INLINE U shift_left(U a) { return _mm256_slli_epi32(a.v, bits); }
template <int bits>
SIDFAST_INLINE U shift_right(U a) { return _mm256_srli_epi32(a.v, bits); }
template <int bits>
SIDFAST_INLINE U shift_right_signed(U a) { return _mm256_srai_epi32(a.v, bits); }

// Words in pairs: the product of the even words fills the pair, (low, high).
SIDFAST_INLINE U multiply_even(U a, U b) { return _mm256_mul_epu32(a.v, b.v); }
SIDFAST_INLINE U odd_to_even(U a) { return _mm256_srli_epi64(a.v, 32); }
SIDFAST_INLINE U join_even(U even, U odd) {
  return _mm256_blend_epi32(even.v, _mm256_slli_epi64(odd.v, 32), 0xaa);
}
// b and c meet first: in Philox they are ready before a.
SIDFAST_INLINE U xor3(U a, U b, U c) { return a ^ (b ^ c); }

// Offsets, in even words, that make interleave_pairs and interleave give consecutive counters.
SIDFAST_INLINE U counter_offsets() { return _mm256_setr_epi32(0, 0, 2, 0, 1, 0, 3, 0); }
SIDFAST_INLINE void interleave_pairs(U a, U b, U* first, U* second) {
  first->v = _mm256_unpacklo_epi64(a.v, b.v);
  second->v = _mm256_unpackhi_epi64(a.v, b.v);
}
SIDFAST_INLINE void interleave(F a, F b, F* first, F* second) {
  first->v = _mm256_unpacklo_ps(a.v, b.v);
  second->v = _mm256_unpackhi_ps(a.v, b.v);
}

SIDFAST_INLINE F operator+(F a, F b) { return _mm256_add_ps(a.v, b.v); }
SIDFAST_INLINE F operator-(F a, F b) { return _mm256_sub_ps(a.v, b.v); }
SIDFAST_INLINE F operator*(F a, F b) { return _mm256_mul_ps(a.v, b.v); }
SIDFAST_INLINE F operator/(F a, F b) { return _mm256_div_ps(a.v, b.v); }
SIDFAST_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
SIDFAST_INLINE F fms(F a, F b, F c) { return _mm256_fmsub_ps(a.v, b.v, c.v); }
// b where either is a NaN.
SIDFAST_INLINE F least(F a, F b) { return _mm256_min_ps(a.v, b.v); }
SIDFAST_INLINE F greatest(F a, F b) { return _mm256_max_ps(a.v, b.v); }
SIDFAST_INLINE F positive_part(F a) { return _mm256_max_ps(a.v, _mm256_setzero_ps()); }
SIDFAST_INLINE F square_root(F a) { return _mm256_sqrt_ps(a.v); }
SIDFAST_INLINE F as_float(U a) { return _mm256_castsi256_ps(a.v); }
SIDFAST_INLINE U as_words(F a) { return _mm256_castps_si256(a.v); }
SIDFAST_INLINE F from_signed(U a) { return _mm256_cvtepi32_ps(a.v); }
SIDFAST_INLINE F absolute(F a) { return as_float(as_words(a) & U(0x7fffffffu)); }

// Per lane: where the top bit of `mask` is set a, else b.
SIDFAST_INLINE F select(U mask, F a, F b) {
  return _mm256_blendv_ps(b.v, a.v, _mm256_castsi256_ps(mask.v));
}
// All ones where a >= b, unsigned.
SIDFAST_INLINE U at_least(U a, U b) {
  return _mm256_cmpeq_epi32(_mm256_max_epu32(a.v, b.v), a.v);
}

SIDFAST_INLINE U load_words(const uint32_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
SIDFAST_INLINE void store_words(uint32_t* p, U a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v);
}
SIDFAST_INLINE F load(const float* p) { return _mm256_loadu_ps(p); }
SIDFAST_INLINE void store(float* p, F a) { _mm256_storeu_ps(p, a.v); }
// Past the caches; p is aligned to the vector.
SIDFAST_INLINE void stream(float* p, F a) { _mm256_stream_ps(p, a.v); }
SIDFAST_INLINE void stream_fence() { _mm_sfence(); }

SIDFAST_INLINE F load(const float16* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
SIDFAST_INLINE void store(float16* p, F a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
SIDFAST_INLINE F load(const bfloat16* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return as_float(U(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16)));
}
SIDFAST_INLINE void store(bfloat16* p, F a) {
  const U bits = as_words(a);
  const U nearest_even = bits + U(0x7fffu) + (shift_right<16>(bits) & U(1u));
  const U not_a_number = as_words(F(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)));
  const U top = shift_right<16>(as_words(
      select(not_a_number, as_float(U(0x7fc00000u)), as_float(nearest_even))));
  const __m256i packed = _mm256_packus_epi32(top.v, top.v);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0xd8)));
}

}  // namespace sidfast::SIDFAST_ISA
