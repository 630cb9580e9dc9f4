// The logistic function, to two units in the last place.
#pragma once

#include "base/simd.h"

namespace sidfast::SIDFAST_ISA {

// exp(x) for |x| <= 87.
SIDFAST_INLINE F exponential(F x) {
  // x = n ln 2 + r, |r| <= ln(2) / 2; adding 1.5 2^23 rounds to the integer n in the low bits.
  constexpr float kRound = 12582912.0f;
  const F shifted = fma(x, F(1.44269504f), F(kRound));
  const F n = shifted - F(kRound);
  F r = fma(n, F(-0.693145752f), x);
  r = fma(n, F(-1.42860677e-6f), r);
  F p = fma(F(1.0f / 720), r, F(1.0f / 120));
  p = fma(p, r, F(1.0f / 24));
  p = fma(p, r, F(1.0f / 6));
  p = fma(p, r, F(0.5f));
  p = fma(p, r, F(1.0f));
  p = fma(p, r, F(1.0f));
  return as_float(as_words(p) + shift_left<23>(as_words(shifted)));
}

// 1 / (1 + exp(-x)); never a NaN.
SIDFAST_INLINE F sigmoid(F x) {
  const F bounded = least(greatest(x, F(-87.0f)), F(87.0f));
  return F(1.0f) / (F(1.0f) + exponential(F(0.0f) - bounded));
}

}  // namespace sidfast::SIDFAST_ISA
