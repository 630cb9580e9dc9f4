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

// What a sample's sums lead to.
struct Outcome {
  double loss;
  double weight;
};

// What a sample's gradients are multiplied with; where it is not good they are zero.
struct Factors {
  float images, networks, noisy;
  bool good;
};

// Where a loss leaves its results, and the upstream gradient that it makes gradients for.
struct Results {
  float* loss;
  float* weight;
  double gradient_scale;
};

SIDFAST_INLINE bool finite(double x) { return x - x == 0.0; }

// Whether the sample is good; writes its loss and weight where `writes` is set.
SIDFAST_INLINE bool conclude(const Outcome& outcome, const Sums<double>& sums,
                             const Results& results, int64_t sample, bool writes) {
  const float loss = static_cast<float>(outcome.loss);
  const float weight = static_cast<float>(outcome.weight);
  // A sum never recovers from a NaN or an Inf among its terms, whatever their signs.
  const bool good = finite(sums.error) && finite(weight) && finite(loss);
  if (writes) {
    results.loss[sample] = good ? loss : 0.0f;
    results.weight[sample] = good ? weight : __uint_as_float(0x7fc00000u);
  }
  return good;
}

// One access of one thread, `kRun` elements from `offset` on of the sample that begins at `row`: all
// of them or none.
struct WholeRun {
  int64_t row;
  int64_t offset;
  bool any;

  SIDFAST_INLINE bool has(int) const { return any; }

  template <int n, class T>
  SIDFAST_INLINE void read(const T* p, float* x) const {
    if (any) {
      load<n>(p + row + offset, x);
    } else {
#pragma unroll
      for (int i = 0; i < n; ++i) x[i] = 0.0f;
    }
  }

  template <int n, class T>
  SIDFAST_INLINE void write(T* p, const float* x) const {
    if (any) store<n>(p + row + offset, x);
  }
};

// Up to `kRun` elements, of which `count` are inside the sample.
struct Run {
  int64_t row;
  int64_t offset;
  int64_t count;
  bool aligned;

  SIDFAST_INLINE bool has(int i) const { return i < count; }

  template <int n, class T>
  SIDFAST_INLINE void read(const T* p, float* x) const {
    load_first<n>(p + row + offset, count, aligned, x);
  }

  template <int n, class T>
  SIDFAST_INLINE void write(T* p, const float* x) const {
    store_first<n>(p + row + offset, count, aligned, x);
  }
};

}  // namespace sidfast::cuda
