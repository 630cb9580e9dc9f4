// What the losses share: runs over rows, gradients written past the caches.
#pragma once

#include <cstring>
#include <type_traits>

#include "base/sums.h"
#include "score_losses/score_losses.h"

namespace sidfast::SIDFAST_ISA {

inline constexpr int64_t kStreamBytes = 4 << 20;  // smaller gradients are left in the caches

struct Sums {
  double error = 0.0, score = 0.0;  // of |e|, and of what the loss adds up

  void add(const Sums& other) {
    error += other.error;
    score += other.score;
  }
};

// group(i) for each whole group of kSumLanes elements, then tail(i, part, n) for what is left,
// n <= kLanes elements at a time. `part` is a constant wherever it is used, so that sums indexed by
// it can live in registers.
template <class Group, class Tail>
SIDFAST_INLINE void over_run(int64_t count, const Group& group, const Tail& tail) {
  int64_t i = 0;
  for (; i + kSumLanes <= count; i += kSumLanes) group(i);
#pragma GCC unroll 8
  for (int part = 0; part < kParts; ++part) {
    const int64_t j = i + part * kLanes;
    if (j < count) tail(j, part, min64(kLanes, count - j));
  }
}

// value(part) for a whole group, stored at p; past the caches where `streaming` (float32 only).
// Written in one go, since a cache line that leaves the core half full costs two transfers.
template <bool streaming, class T, class Value>
SIDFAST_INLINE void put(T* p, const Value& value) {
#pragma GCC unroll 8
  for (int part = 0; part < kParts; ++part) {
    if constexpr (streaming && std::is_same_v<T, float>) {
      stream(p + part * kLanes, value(part));
    } else {
      store(p + part * kLanes, value(part));
    }
  }
}

template <class T>
bool worth_streaming(const T* gradient, const RowShape& shape) {
  return shape.samples * shape.size * static_cast<int64_t>(sizeof(T)) >= kStreamBytes &&
         shape.size % 16 == 0 && reinterpret_cast<uintptr_t>(gradient) % 64 == 0;
}

template <class T>
void clear(T* gradient, int64_t at, int64_t count) {
  if (gradient) std::memset(gradient + at, 0, static_cast<size_t>(count) * sizeof(T));
}

}  // namespace sidfast::SIDFAST_ISA
