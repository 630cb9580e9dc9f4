// Box and Muller's transform on the vectors U and F of whoever includes this: the CPU's of
// base/simd.h or a CUDA thread's of base/lane.cuh. Every operation is correctly rounded, so that
// equal words give equal bits on all of them.
#pragma once

namespace sidfast::SIDFAST_ISA {

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

}  // namespace sidfast::SIDFAST_ISA
