// Gradients for another upstream gradient than they were made for.
#pragma once

#include "base/launch.cuh"
#include "base/storage.cuh"
#include "score_losses/cuda.h"

namespace sidfast::cuda {

inline constexpr int kRescaleThreads = 256;
inline constexpr int kRescaleRun = 8;        // elements that a thread takes at once
inline constexpr int64_t kRescaleChunk = 4 * kRescaleThreads * kRescaleRun;

__global__ void __launch_bounds__(kRescaleThreads)
    rescale_chunks(Rescaling given, RowShape shape, int64_t chunks, bool aligned) {
  for (int64_t unit = blockIdx.x; unit < shape.samples * chunks; unit += gridDim.x) {
    const int64_t sample = unit / chunks, begin = unit % chunks * kRescaleChunk;
    const int64_t end = least(shape.size, begin + kRescaleChunk);
    const float now = given.upstream[sample * given.stride];
    if (now == given.made_for) continue;
    const float factor = now / given.made_for;
#pragma unroll
    for (int which = 0; which < kMostGradients; ++which) {
      if (which >= given.count) break;
      typed(Values{given.gradients[which], given.dtypes[which]}, [&](auto* gradient) {
        for (int64_t i = begin + threadIdx.x * kRescaleRun; i < end;
             i += kRescaleThreads * kRescaleRun) {
          auto* at = gradient + sample * shape.size + i;
          float values[kRescaleRun];
          load_first<kRescaleRun>(at, end - i, aligned, values);
#pragma unroll
          for (float& value : values) value *= factor;
          store_first<kRescaleRun>(at, end - i, aligned, values);
        }
      });
    }
  }
}

}  // namespace sidfast::cuda
