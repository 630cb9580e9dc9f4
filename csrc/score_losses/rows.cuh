// What the losses share: sums over a sample in a fixed order, and what follows from them.
#pragma once

#include "base/cluster.cuh"
#include "base/launch.cuh"
#include "base/storage.cuh"
#include "score_losses/cuda.h"

namespace sidfast::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;
inline constexpr int kMostWarps = 1024 / kWarp;

template <class Real>
struct Sums {
  Real error, score;  // of |e|, and of what the loss adds up

  template <class Other>
  SIDFAST_INLINE void add(const Sums<Other>& other) {
    error += static_cast<Real>(other.error);
    score += static_cast<Real>(other.score);
  }
};

// The sum over a warp's lanes, in all of them: every lane adds the same pairs.
template <class Real>
SIDFAST_INLINE Sums<Real> over_warp(Sums<Real> sums) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    sums.add(Sums<Real>{__shfl_xor_sync(kAllLanes, sums.error, distance),
                        __shfl_xor_sync(kAllLanes, sums.score, distance)});
  }
  return sums;
}

// The sum over a block's threads, in those of warp 0; `parts` is shared. float32 within a warp,
// float64 among warps.
SIDFAST_INLINE Sums<double> over_block(const Sums<float>& sums, Sums<float> (&parts)[kMostWarps]) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const Sums<float> warp_sums = over_warp(sums);
  if (lane == 0) parts[warp] = warp_sums;
  __syncthreads();
  Sums<double> total{0.0, 0.0};
  if (warp == 0) {
    if (lane < static_cast<int>(blockDim.x) / kWarp) total.add(parts[lane]);
    total = over_warp(total);
  }
  return total;
}

// A sample's loss and the factor of its gradients, once its sums are known.
struct Outcome {
  double loss;
  double weight;
};

struct Factor {
  float value;
  bool good;
};

SIDFAST_INLINE bool finite(double x) { return x - x == 0.0; }

// Writes loss and bad where `writes` is set.
SIDFAST_INLINE Factor conclude(const Outcome& outcome, const Sums<double>& sums,
                               double gradient_scale, float* loss, bool* bad, bool writes) {
  const float rounded = static_cast<float>(outcome.loss);
  // A sum never recovers from a NaN or an Inf among its terms, whatever their signs.
  const bool good = finite(sums.error) && finite(outcome.weight) && finite(rounded);
  if (writes) {
    *loss = good ? rounded : 0.0f;
    *bad = !good;
  }
  return {static_cast<float>(outcome.weight * gradient_scale), good};
}

// One access of one thread, `kRun` elements: all of them or none.
struct WholeRun {
  int64_t at;
  bool any;

  template <int n, class T>
  SIDFAST_INLINE void read(const T* p, float* x) const {
    if (any) {
      load<n>(p + at, x);
    } else {
#pragma unroll
      for (int i = 0; i < n; ++i) x[i] = 0.0f;
    }
  }

  template <int n, class T>
  SIDFAST_INLINE void write(T* p, const float* x) const {
    if (any) store<n>(p + at, x);
  }
};

// Up to `kRun` elements, of which `count` are inside the sample.
struct Run {
  int64_t at;
  int64_t count;
  bool aligned;

  template <int n, class T>
  SIDFAST_INLINE void read(const T* p, float* x) const {
    load_first<n>(p + at, count, aligned, x);
  }

  template <int n, class T>
  SIDFAST_INLINE void write(T* p, const float* x) const {
    store_first<n>(p + at, count, aligned, x);
  }
};

}  // namespace sidfast::cuda
