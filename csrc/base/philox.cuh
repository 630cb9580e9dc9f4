// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), one counter
// per call; base/philox.h is its form for vectors.
#pragma once

#include "base/lane.cuh"

namespace sidfast::cuda {

struct SampleKey {
  uint64_t seed;
  uint64_t index;
  uint32_t stream;
};

// The words of elements 4 * block ... 4 * block + 3 of a sample.
SIDFAST_INLINE void philox(uint32_t block, const SampleKey& key, U (&words)[4]) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  uint32_t c0 = block, c1 = static_cast<uint32_t>(key.index);
  uint32_t c2 = static_cast<uint32_t>(key.index >> 32), c3 = key.stream;
  uint32_t k0 = static_cast<uint32_t>(key.seed), k1 = static_cast<uint32_t>(key.seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = kMultiplier0 * c0, product1 = kMultiplier1 * c2;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(product1);
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(product0);
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  words[0] = U(c0);
  words[1] = U(c1);
  words[2] = U(c2);
  words[3] = U(c3);
}

}  // namespace sidfast::cuda
