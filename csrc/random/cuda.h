// CUDA kernels of the room `random`; the operations are those of random.h.
#pragma once

#include "base/device_key.h"
#include "random/random.h"

namespace sidfast::cuda {

Status normal(void* out, Dtype, const ImageShape&, const DeviceKey&, void* stream);
Status uniform(float* out, const ImageShape&, const DeviceKey&, void* stream);
Status integers(int64_t* out, uint64_t high, const ImageShape&, const DeviceKey&, void* stream);

// Where x or out is channels_last, both must be tileable().
Status add_noise(const void* x, Dtype, void* out, Dtype, const float* sigma, const float* scale,
                 const ImageShape&, const DeviceKey&, void* stream);
Status dropout(const void* x, void* out, Dtype, uint64_t threshold, float factor,
               const ImageShape&, const DeviceKey&, void* stream);

// Tiles are four pixels of four channels, or of all three.
inline bool tileable(const void* p, const ImageShape& shape) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0 && shape.pixels % 4 == 0 &&
         (shape.channels % 4 == 0 || shape.channels == 3);
}

}  // namespace sidfast::cuda
