// Runs of keyed numbers, written into a small buffer that stays in the first-level cache.
#pragma once

#include "base/philox.h"
#include "base/box_muller.h"

namespace sidfast::SIDFAST_ISA {

// Elements that one step of a fill makes; a buffer for n elements holds n + kOvershoot.
inline constexpr int kStep = 2 * kLanes * kChains;
inline constexpr int kOvershoot = kStep + 4;

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
