// AVX-512 F, BW, DQ, VL: 16 lanes.
#pragma once

#include <immintrin.h>

namespace sidfast::SIDFAST_ISA {

inline constexpr int kLanes = 16;

struct U {
  __m512i v;
  U() = default;
  SIDFAST_INLINE U(__m512i x) : v(x) {}
  SIDFAST_INLINE explicit U(uint32_t x) : v(_mm512_set1_epi32(static_cast<int>(x))) {}
};

struct F {
  __m512 v;
  F() = default;
  SIDFAST_INLINE F(__m512 x) : v(x) {}
  SIDFAST_INLINE explicit F(float x) : v(_mm512_set1_ps(x)) {}
};

SIDFAST_INLINE U operator+(U a, U b) { return _mm512_add_epi32(a.v, b.v); }
SIDFAST_INLINE U operator-(U a, U b) { return _mm512_sub_epi32(a.v, b.v); }
SIDFAST_INLINE U operator&(U a, U b) { return _mm512_and_si512(a.v, b.v); }
SIDFAST_INLINE U operator|(U a, U b) { return _mm512_or_si512(a.v, b.v); }
SIDFAST_INLINE U operator^(U a, U b) { return _mm512_xor_si512(a.v, b.v); }
template <int bits>
SIDFAST_INLINE U shift_left(U a) { return _mm512_slli_epi32(a.v, bits); }
template <int bits>
SIDFAST_INLINE U shift_right(U a) { return _mm512_srli_epi32(a.v, bits); }
template <int bits>
SIDFAST_INLINE U shift_right_signed(U a) { return _mm512_srai_epi32(a.v, bits); }

// Words in pairs: the product of the even words fills the pair, (low, high).
SIDFAST_INLINE U multiply_even(U a, U b) { return _mm512_mul_epu32(a.v, b.v); }
SIDFAST_INLINE U odd_to_even(U a) { return _mm512_srli_epi64(a.v, 32); }
SIDFAST_INLINE U join_even(U even, U odd) {
  return _mm512_mask_blend_epi32(0xaaaa, even.v, _mm512_slli_epi64(odd.v, 32));
}
SIDFAST_INLINE U xor3(U a, U b, U c) { return _mm512_ternarylogic_epi32(a.v, b.v, c.v, 0x96); }

// Offsets, in even words, that make interleave_pairs and interleave give consecutive counters.
SIDFAST_INLINE U counter_offsets() {
  return _mm512_setr_epi32(0, 0, 4, 0, 1, 0, 5, 0, 2, 0, 6, 0, 3, 0, 7, 0);
}
SIDFAST_INLINE void interleave_pairs(U a, U b, U* first, U* second) {
  first->v = _mm512_unpacklo_epi64(a.v, b.v);
  second->v = _mm512_unpackhi_epi64(a.v, b.v);
}
SIDFAST_INLINE void interleave(F a, F b, F* first, F* second) {
  first->v = _mm512_unpacklo_ps(a.v, b.v);
  second->v = _mm512_unpackhi_ps(a.v, b.v);
}

SIDFAST_INLINE F operator+(F a, F b) { return _mm512_add_ps(a.v, b.v); }
SIDFAST_INLINE F operator-(F a, F b) { return _mm512_sub_ps(a.v, b.v); }
SIDFAST_INLINE F operator*(F a, F b) { return _mm512_mul_ps(a.v, b.v); }
SIDFAST_INLINE F operator/(F a, F b) { return _mm512_div_ps(a.v, b.v); }
SIDFAST_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
SIDFAST_INLINE F fms(F a, F b, F c) { return _mm512_fmsub_ps(a.v, b.v, c.v); }
// b where either is a NaN.
SIDFAST_INLINE F least(F a, F b) { return _mm512_min_ps(a.v, b.v); }
SIDFAST_INLINE F greatest(F a, F b) { return _mm512_max_ps(a.v, b.v); }
SIDFAST_INLINE F positive_part(F a) { return _mm512_max_ps(a.v, _mm512_setzero_ps()); }
SIDFAST_INLINE F square_root(F a) { return _mm512_sqrt_ps(a.v); }
SIDFAST_INLINE F as_float(U a) { return _mm512_castsi512_ps(a.v); }
SIDFAST_INLINE U as_words(F a) { return _mm512_castps_si512(a.v); }
SIDFAST_INLINE F from_signed(U a) { return _mm512_cvtepi32_ps(a.v); }
SIDFAST_INLINE F absolute(F a) { return as_float(as_words(a) & U(0x7fffffffu)); }

// Per lane: where the top bit of `mask` is set a, else b.
SIDFAST_INLINE F select(U mask, F a, F b) {
  return _mm512_mask_blend_ps(_mm512_movepi32_mask(mask.v), b.v, a.v);
}
// All ones where a >= b, unsigned.
SIDFAST_INLINE U at_least(U a, U b) {
  return _mm512_movm_epi32(_mm512_cmpge_epu32_mask(a.v, b.v));
}

SIDFAST_INLINE U load_words(const uint32_t* p) { return _mm512_loadu_si512(p); }
SIDFAST_INLINE void store_words(uint32_t* p, U a) { _mm512_storeu_si512(p, a.v); }
SIDFAST_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
SIDFAST_INLINE void store(float* p, F a) { _mm512_storeu_ps(p, a.v); }
// Past the caches; p is aligned to the vector.
SIDFAST_INLINE void stream(float* p, F a) { _mm512_stream_ps(p, a.v); }
SIDFAST_INLINE void stream_fence() { _mm_sfence(); }

SIDFAST_INLINE F load(const float16* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
SIDFAST_INLINE void store(float16* p, F a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
SIDFAST_INLINE F load(const bfloat16* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return as_float(U(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)));
}
SIDFAST_INLINE void store(bfloat16* p, F a) {
  const U bits = as_words(a);
  const U nearest_even = bits + U(0x7fffu) + (shift_right<16>(bits) & U(1u));
  const __mmask16 not_a_number = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  const U top = shift_right<16>(
      U(_mm512_mask_blend_epi32(not_a_number, nearest_even.v, U(0x7fc00000u).v)));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(top.v));
}

}  // namespace sidfast::SIDFAST_ISA
