// Kernels of the room `score_losses`: losses and the gradients to their arguments together, so
// that every tensor is read from memory once.
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "base/error.h"
#include "base/noise_key.h"

namespace sidfast {

// `samples` rows of `size` elements, dense, every tensor in the same element order.
struct RowShape {
  int64_t samples;
  int64_t size;
};

// The SiD loss of method and paper (arXiv 2404.04057): d = teacher - fake, e = teacher - images,
// w = max(mean|e|, floor), loss = sum d (e - alpha d) / w.
struct SidArguments {
  const void* images;
  const void* teacher;
  const void* fake;
  float* loss;                // (samples,)
  float* weight;              // (samples,): 1 / w; NaN for a NaN or Inf in the sample or its loss,
                              // which is then zeroed with its gradients
  void* images_gradient;      // gradients may be null
  void* teacher_gradient;
  void* fake_gradient;
  void* noisy_gradient;       // of raw outputs alone
  double alpha;
  double floor;
  double gradient_scale;      // upstream gradient that the gradients are made for
};

// Denoising score matching: loss = weight sum (denoised - images)^2 with EDM's weight
// (sigma^2 + sigma_data^2) / (sigma sigma_data)^2.
struct DsmArguments {
  const void* images;
  const void* denoised;
  const float* sigma;         // (samples,)
  float* loss;
  float* weight;
  void* denoised_gradient;    // may be null
  double sigma_data;
  double gradient_scale;
};

// Variational score distillation (DMD, arXiv 2311.18828): g = weight (fake - teacher) with
// weight = scale / (max(mean|images - teacher|, floor) + eps), loss = sum g^2 / 2, gradient g.
struct VsdArguments {
  const void* images;
  const void* teacher;
  const void* fake;
  const float* scale;         // (samples,), null for 1
  float* loss;
  float* weight;
  void* images_gradient;      // may be null
  double floor;
  double eps;
  double gradient_scale;
};

// How networks' raw outputs, which then stand for teacher, fake or denoised, become images:
// c_skip x_t + c_out raw. x_t is `noisy` or, where that is null, images + sigma noise.
struct RawArguments {
  const void* noisy;
  const float* sigma;         // (samples,) each
  const float* c_skip;
  const float* c_out;
};

struct ScoreLossKernels {
  Status (*sid)(const SidArguments&, Dtype, const RowShape&, int threads);
  Status (*dsm)(const DsmArguments&, Dtype, const RowShape&, int threads);
  Status (*vsd)(const VsdArguments&, Dtype, const RowShape&, int threads);
  // Types of images and noisy, and of raw outputs. The key's noise numbers elements in row order.
  Status (*sid_raw)(const SidArguments&, const RawArguments&, const NoiseKey&, Dtype, Dtype,
                    const RowShape&, int threads);
  Status (*dsm_raw)(const DsmArguments&, const RawArguments&, const NoiseKey&, Dtype, Dtype,
                    const RowShape&, int threads);
};

namespace generic {
extern const ScoreLossKernels score_loss_kernels;
}
namespace avx2 {
extern const ScoreLossKernels score_loss_kernels;
}
namespace avx512 {
extern const ScoreLossKernels score_loss_kernels;
}

}  // namespace sidfast
