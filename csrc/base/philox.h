// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//
// The counter of sample element e is (e >> 2, index low, index high, stream); its four words serve
// the elements with e & 3 = 0, 1, 2, 3. Vectors run over consecutive values of e >> 2, one counter
// in each pair of words, so that a 32x32 -> 64 bit product needs no shuffling.
#pragma once

#include "base/simd.h"

namespace sidfast::SIDFAST_ISA {

inline constexpr int kCounters = kLanes / 2;  // in a vector

// Vectors that go through the rounds side by side: a round is a chain of dependent instructions,
// and four chains keep the multipliers busy.
inline constexpr int kChains = 4;

struct SampleKey {
  uint64_t seed;
  uint64_t index;
  uint32_t stream;
};

// Even words: the four words of each counter. Odd words hold leftovers.
struct Words {
  U r0[kChains], r1[kChains], r2[kChains], r3[kChains];
};

// Words of kChains * kCounters consecutive counters; lane order as counter_offsets().
SIDFAST_INLINE void philox(uint32_t first_counter, const SampleKey& key, Words* w) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  uint32_t k0 = static_cast<uint32_t>(key.seed), k1 = static_cast<uint32_t>(key.seed >> 32);
#pragma GCC unroll 4
  for (int j = 0; j < kChains; ++j) {
    w->r0[j] = U(first_counter + static_cast<uint32_t>(j * kCounters)) + counter_offsets();
    w->r1[j] = U(static_cast<uint32_t>(key.index));
    w->r2[j] = U(static_cast<uint32_t>(key.index >> 32));
    w->r3[j] = U(key.stream);
  }
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 4
    for (int j = 0; j < kChains; ++j) {
      const U product0 = multiply_even(w->r0[j], U(kMultiplier0));
      const U product1 = multiply_even(w->r2[j], U(kMultiplier1));
      w->r0[j] = xor3(odd_to_even(product1), w->r1[j], U(k0));
      w->r1[j] = product1;
      w->r2[j] = xor3(odd_to_even(product0), w->r3[j], U(k1));
      w->r3[j] = product0;
    }
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
}

}  // namespace sidfast::SIDFAST_ISA
