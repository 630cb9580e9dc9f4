// Kernels of the room `group_norm`: group normalisation with what U-Nets put around it.
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "base/error.h"

namespace sidfast {

// Dense pixels of `channels` values each, channels last.
struct GroupNormShape {
  int64_t samples;
  int64_t channels;
  int64_t pixels;
  int64_t groups;
};

// y = act(n (1 + scale) + shift), n = (x + offset - mean) rstd weight + bias, mean and rstd over
// each group of channels of a sample; act is SiLU or nothing.
struct GroupNormArguments {
  const void* x;
  const float* weight;  // (channels,)
  const float* bias;
  const float* offset;  // (samples, channels), null for zeros
  const float* scale;   // likewise; together with shift
  const float* shift;
  float* mean;          // (samples, groups): written by forward, read by backward
  float* rstd;
  double eps;
  bool silu;
};

// Gradients other than x's may be null.
struct GroupNormGradients {
  const void* y;
  void* x;
  float* weight;
  float* bias;
  float* offset;
  float* scale;
  float* shift;
};

struct GroupNormKernels {
  Status (*forward)(const GroupNormArguments&, void* y, Dtype, const GroupNormShape&, int threads);
  Status (*backward)(const GroupNormArguments&, const GroupNormGradients&, Dtype,
                     const GroupNormShape&, int threads);
};

namespace generic {
extern const GroupNormKernels group_norm_kernels;
}
namespace avx2 {
extern const GroupNormKernels group_norm_kernels;
}
namespace avx512 {
extern const GroupNormKernels group_norm_kernels;
}

}  // namespace sidfast
