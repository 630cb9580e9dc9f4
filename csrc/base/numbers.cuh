// Keyed numbers of a sample's elements, made where they are used.
#pragma once

#include "base/device_key.h"
#include "base/philox.cuh"

#include "base/box_muller.h"  // on the vectors of the line above

namespace sidfast::cuda {

inline constexpr int kBlock = 4;  // numbers that come from one counter

// A kind of numbers: what is made of the four words of a counter.
struct Normals {
  using Value = F;
  static SIDFAST_INLINE void from_words(const U (&words)[kBlock], F* out) {
    box_muller(words[0], words[1], out, out + 1);
    box_muller(words[2], words[3], out + 2, out + 3);
  }
};

// Numbers of the elements start ... start + n - 1; kBlock divides start and n.
template <class Kind, int n>
SIDFAST_INLINE void numbers(const SampleKey& key, int64_t start, typename Kind::Value* out) {
#pragma unroll
  for (int i = 0; i < n; i += kBlock) {
    U words[kBlock];
    philox(static_cast<uint32_t>((start + i) >> 2), key, words);
    Kind::from_words(words, out + i);
  }
}

// The normal of one element, for those that are not taken in turn.
SIDFAST_INLINE F normal_of(const SampleKey& key, int64_t element) {
  U words[kBlock];
  philox(static_cast<uint32_t>(element >> 2), key, words);
  const bool second = element & 2;
  F cosine, sine;
  box_muller(second ? words[2] : words[0], second ? words[3] : words[1], &cosine, &sine);
  return element & 1 ? sine : cosine;
}

SIDFAST_INLINE SampleKey sample_key(const DeviceKey& key, int64_t sample) {
  return {static_cast<uint64_t>(*key.seed), static_cast<uint64_t>(key.index[sample]), key.stream};
}

}  // namespace sidfast::cuda
