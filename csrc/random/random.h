// Kernels of the room `random`: numbers that are a pure function of (seed, stream, sample index,
// element), and the two operations that consume them without storing them.
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "base/error.h"
#include "base/noise_key.h"

namespace sidfast {

// `samples` images of `channels` x `pixels` elements, each image stored as C,HW or, where
// channels_last is set, as HW,C. Elements are numbered in C,HW order whatever the storage.
struct ImageShape {
  int64_t samples;
  int64_t channels;
  int64_t pixels;
  bool input_channels_last = false;
  bool output_channels_last = false;
};

struct RandomKernels {
  // Unit normal; |value| <= 5.77.
  Status (*normal)(void* out, Dtype, const ImageShape&, const NoiseKey&, int threads);
  // Multiples of 2^-24 in [0, 1).
  Status (*uniform)(float* out, const ImageShape&, const NoiseKey&, int threads);
  // Integers in [0, high), high <= 2^32.
  Status (*integers)(int64_t* out, uint64_t high, const ImageShape&, const NoiseKey&, int threads);
  // out = (x + sigma[b] * normal) * scale[b]; scale may be null.
  Status (*add_noise)(const void* x, Dtype, void* out, Dtype, const float* sigma,
                      const float* scale, const ImageShape&, const NoiseKey&, int threads);
  // out = x * factor where the element's word >= threshold, else 0. Its own backward.
  Status (*dropout)(const void* x, void* out, Dtype, uint64_t threshold, float factor,
                    const ImageShape&, const NoiseKey&, int threads);
};

namespace generic {
extern const RandomKernels random_kernels;
}
namespace avx2 {
extern const RandomKernels random_kernels;
}
namespace avx512 {
extern const RandomKernels random_kernels;
}

}  // namespace sidfast
