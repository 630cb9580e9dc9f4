// Runs of keyed numbers, written into a small buffer that stays in the first-level cache.
#pragma once

#include "base/philox.h"

namespace sidfast::SIDFAST_ISA {

// Elements that one step of a fill makes; a buffer for n elements holds n + kOvershoot.
inline constexpr int kStep = 2 * kLanes * kChains;
inline constexpr int kOvershoot = kStep + 4;

// (R cos, R sin) with R = sqrt(max(-2 ln u, 0)), u = ((a >> 8) + 1) 2^-24 and the angle 2 pi v,
// v = (b >> 8) 2^-24: two independent unit normals (Box and Muller, 1958).
SIDFAST_INLINE void box_muller(U a, U b, F* cosine, F* sine) {
  // u = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)); near u = 1 the logarithm keeps its
  // relative accuracy because f is exact and k is zero.
  constexpr uint32_t kRootHalf = 0x3f3504f3u;
  const U bits = as_words(from_signed(shift_right<8>(a) + U(1u)));
  const U offset = bits - U((24u << 23) + kRootHalf);
  const F k = from_signed(shift_right_signed<23>(offset));
  const F f = as_float((offset & U(0x007fffffu)) + U(kRootHalf)) - F(1.0f);
  // -2 ln(1 + f) = -2 f + f^2 q(f), minimax in relative error 3e-8.
  F q = fma(F(-0.17469697f), f, F(0.28615046f));
  q = fma(q, f, F(-0.29835945f));
  q = fma(q, f, F(0.33141017f));
  q = fma(q, f, F(-0.39924145f));
  q = fma(q, f, F(0.5000351f));
  q = fma(q, f, F(-0.666679f));
  q = fma(q, f, F(0.9999998f));
  const F minus_two_log = fma(fma(q, f, F(-2.0f)), f, k * F(-1.38629436f));
  const F radius = square_root(positive_part(minus_two_log));

  // The angle in quarter turns is quadrant + y, y in [-1/2, 1/2): both exact.
  const U angle = b & U(0xffffff00u);
  const U quadrant = angle + U(0x20000000u);  // in the two top bits
  const F y = from_signed(shift_left<2>(angle)) * F(0x1p-32f);
  const F z = y * y;
  F s = fma(F(-0.0045923316f), z, F(0.07967592f));
  s = fma(s, z, F(-0.64596295f));
  s = fma(s, z, F(1.5707963f)) * y;
  F c = fma(F(-0.020427227f), z, F(0.25360674f));
  c = fma(c, z, F(-1.233698f));
  c = fma(c, z, F(1.0f));
  const U odd = shift_left<1>(quadrant);
  const U sine_sign = quadrant & U(0x80000000u);
  const U cosine_sign = (quadrant + U(0x40000000u)) & U(0x80000000u);
  *cosine = radius * as_float(as_words(select(odd, s, c)) ^ cosine_sign);
  *sine = radius * as_float(as_words(select(odd, c, s)) ^ sine_sign);
}

// Kinds of numbers: where the words of one counter vector go, and what is made of them afterwards,
// in place. Two passes over a cached buffer are quicker than one that needs all registers at once.
struct Normals {
  using Value = float;

  static SIDFAST_INLINE void place(float* out, U r0, U r1, U r2, U r3) {
    store(out, as_float(join_even(r0, r2)));
    store(out + kLanes, as_float(join_even(r1, r3)));
  }

  static SIDFAST_INLINE void finish(float* out, int64_t count) {
    for (int64_t i = 0; i < count; i += 2 * kLanes) {
      F cosine, sine, first, second;
      box_muller(as_words(load(out + i)), as_words(load(out + i + kLanes)), &cosine, &sine);
      interleave(cosine, sine, &first, &second);
      store(out + i, first);
      store(out + i + kLanes, second);
    }
  }
};

struct Bits {
  using Value = uint32_t;

  static SIDFAST_INLINE void place(uint32_t* out, U r0, U r1, U r2, U r3) {
    U first, second;
    interleave_pairs(join_even(r0, r1), join_even(r2, r3), &first, &second);
    store_words(out, first);
    store_words(out + kLanes, second);
  }

  static SIDFAST_INLINE void finish(uint32_t*, int64_t) {}
};

// Numbers of elements [start, start + count) of one sample; returns where in `buffer` they begin.
template <class Kind>
const typename Kind::Value* fill(typename Kind::Value* buffer, const SampleKey& key,
                                 int64_t start, int64_t count) {
  const int64_t skipped = start & 3;
  uint32_t counter = static_cast<uint32_t>(start >> 2);
  int64_t made = 0;
  for (; made < skipped + count; made += kStep) {
    Words w;
    philox(counter, key, &w);
#pragma GCC unroll 4
    for (int j = 0; j < kChains; ++j) {
      Kind::place(buffer + made + 2 * kLanes * j, w.r0[j], w.r1[j], w.r2[j], w.r3[j]);
    }
    counter += static_cast<uint32_t>(kChains * kCounters);
  }
  Kind::finish(buffer, made);
  return buffer + skipped;
}

}  // namespace sidfast::SIDFAST_ISA
