// Runs of keyed numbers, written into a small buffer that stays in the first-level cache.
#pragma once

#include "base/philox.h"

namespace sidfast::SIDFAST_ISA {

// Elements that one step of a fill makes; a buffer for n elements holds n + kOvershoot.
inline constexpr int kStep = 4 * kLanes;
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

struct Normals {
  using Value = float;
  static SIDFAST_INLINE void write(float* out, const Words& w) {
    F cosine, sine, first, second;
    box_muller(join_even(w.r0, w.r2), join_even(w.r1, w.r3), &cosine, &sine);
    interleave(cosine, sine, &first, &second);
    store(out, first);
    store(out + kLanes, second);
  }
};

struct Bits {
  using Value = uint32_t;
  static SIDFAST_INLINE void write(uint32_t* out, const Words& w) {
    U first, second;
    interleave_pairs(join_even(w.r0, w.r1), join_even(w.r2, w.r3), &first, &second);
    store_words(out, first);
    store_words(out + kLanes, second);
  }
};

// Numbers of elements [start, start + count) of one sample; returns where in `buffer` they begin.
template <class Kind>
SIDFAST_INLINE const typename Kind::Value* fill(typename Kind::Value* buffer, const SampleKey& key,
                                                int64_t start, int64_t count) {
  const int64_t skipped = start & 3;
  U counter = U(static_cast<uint32_t>(start >> 2)) + counter_offsets();
  for (int64_t made = 0; made < skipped + count; made += kStep) {
    Kind::write(buffer + made, philox(counter, key));
    counter = counter + U(static_cast<uint32_t>(kCounters));
    Kind::write(buffer + made + 2 * kLanes, philox(counter, key));
    counter = counter + U(static_cast<uint32_t>(kCounters));
  }
  return buffer + skipped;
}

}  // namespace sidfast::SIDFAST_ISA
