// Sums in a fixed order: float32 in 32 virtual lanes over a block, float64 from block to block.
// The order depends on the element number alone, so no thread count, split or vector width shows.
#pragma once

#include "base/simd.h"

namespace sidfast::SIDFAST_ISA {

inline constexpr int kSumLanes = 32;
inline constexpr int kParts = kSumLanes / kLanes;
inline constexpr int64_t kBlock = 2048;  // elements, a multiple of kSumLanes

// Fetches the cache lines of kSumLanes values at p into the second level.
template <class T>
SIDFAST_INLINE void prefetch_group(const T* p) {
  constexpr int kLine = 64 / sizeof(T);
#pragma GCC unroll 2
  for (int i = 0; i < kSumLanes; i += kLine) __builtin_prefetch(p + i, 0, 2);
}

struct BlockSum {
  F part[kParts];

  SIDFAST_INLINE BlockSum() {
    for (F& p : part) p = F(0.0f);
  }

  SIDFAST_INLINE double total() const {
    float lanes[kSumLanes];
    for (int i = 0; i < kParts; ++i) store(lanes + i * kLanes, part[i]);
    double halves[kSumLanes / 2];
    for (int i = 0; i < kSumLanes / 2; ++i) {
      halves[i] = static_cast<double>(lanes[i]) + static_cast<double>(lanes[i + kSumLanes / 2]);
    }
    for (int width = kSumLanes / 4; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) halves[i] += halves[i + width];
    }
    return halves[0];
  }
};

}  // namespace sidfast::SIDFAST_ISA
