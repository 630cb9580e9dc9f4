// What the losses share: sums and factors of a sample, runs over its elements, gradients written
// past the caches.
#pragma once

#include <cstring>
#include <type_traits>

#include "base/sums.h"
#include "score_losses/score_losses.h"

namespace sidfast::SIDFAST_ISA {

struct Sums {
  double error = 0.0, score = 0.0;  // of |e|, and of what the loss adds up

  void add(const Sums& other) {
    error += other.error;
    score += other.score;
  }
};

// A sample's loss, and what its gradients are multiplied with before `gradient_scale`.
struct Outcome {
  double loss, weight;
};

// How a run is read: whole vectors, or the first n elements of one.
struct Whole {
  template <class T>
  SIDFAST_INLINE F operator()(const T* p) const { return load(p); }
};

struct First {
  int64_t n;
  template <class T>
  SIDFAST_INLINE F operator()(const T* p) const { return load_first(p, n); }
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

// Where a gradient goes, if it is wanted.
template <class T>
struct Target {
  static constexpr int64_t kStreamBytes = 4 << 20;  // smaller ones are left in the caches

  T* p = nullptr;
  bool streams = false;  // past the caches

  Target() = default;
  Target(void* gradient, const RowShape& shape)
      : p(static_cast<T*>(gradient)),
        streams(std::is_same_v<T, float> && p &&
                shape.samples * shape.size * static_cast<int64_t>(sizeof(T)) >= kStreamBytes &&
                shape.size % 16 == 0 && reinterpret_cast<uintptr_t>(p) % 64 == 0) {}

  SIDFAST_INLINE explicit operator bool() const { return p; }

  SIDFAST_INLINE Target from(int64_t at) const {
    Target moved = *this;
    if (p) moved.p = p + at;
    return moved;
  }

  // value(part) for a whole group at i. Written in one go, since a cache line that leaves the core
  // half full costs two transfers.
  template <class Value>
  SIDFAST_INLINE void put(int64_t i, const Value& value) const {
    if constexpr (std::is_same_v<T, float>) {
      if (streams) {
#pragma GCC unroll 8
        for (int part = 0; part < kParts; ++part) stream(p + i + part * kLanes, value(part));
        return;
      }
    }
#pragma GCC unroll 8
    for (int part = 0; part < kParts; ++part) store(p + i + part * kLanes, value(part));
  }

  SIDFAST_INLINE void put_first(int64_t i, F value, int64_t n) const { store_first(p + i, value, n); }

  void clear(int64_t at, int64_t count) const {
    if (p) std::memset(p + at, 0, static_cast<size_t>(count) * sizeof(T));
  }
};

}  // namespace sidfast::SIDFAST_ISA
