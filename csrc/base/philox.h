// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//
// The counter of sample element e is (e >> 2, index low, index high, stream); its four words serve
// the elements with e & 3 = 0, 1, 2, 3. Vectors run over consecutive values of e >> 2, one counter
// in each pair of words, so that a 32x32 -> 64 bit product needs no shuffling.
#pragma once

#include "base/simd.h"

namespace sidfast::SIDFAST_ISA {

inline constexpr int kCounters = kLanes / 2;  // in a vector

struct SampleKey {
  uint64_t seed;
  uint64_t index;
  uint32_t stream;
};

// Even words: the four words of each counter. Odd words hold leftovers.
struct Words {
  U r0, r1, r2, r3;
};

SIDFAST_INLINE Words philox(U counter, const SampleKey& key) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  uint32_t k0 = static_cast<uint32_t>(key.seed), k1 = static_cast<uint32_t>(key.seed >> 32);
  U x0 = counter, x1(static_cast<uint32_t>(key.index)),
    x2(static_cast<uint32_t>(key.index >> 32)), x3(key.stream);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const U product0 = multiply_even(x0, U(kMultiplier0));
    const U product1 = multiply_even(x2, U(kMultiplier1));
    x0 = xor3(odd_to_even(product1), x1, U(k0));
    x1 = product1;
    x2 = xor3(odd_to_even(product0), x3, U(k1));
    x3 = product0;
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return {x0, x1, x2, x3};
}

}  // namespace sidfast::SIDFAST_ISA
