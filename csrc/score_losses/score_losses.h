// Kernels of the room `score_losses`: losses and the gradients to their arguments together, so
// that every tensor is read from memory once.
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "base/error.h"

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
  bool* bad;                  // (samples,): a NaN or Inf in the sample or in its loss; all zeroed
  void* images_gradient;      // gradients may be null
  void* teacher_gradient;
  void* fake_gradient;
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
  bool* bad;
  void* denoised_gradient;    // may be null
  double sigma_data;
  double gradient_scale;
};

struct ScoreLossKernels {
  Status (*sid)(const SidArguments&, Dtype, const RowShape&, int threads);
  Status (*dsm)(const DsmArguments&, Dtype, const RowShape&, int threads);
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
