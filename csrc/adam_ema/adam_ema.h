// Kernels of the room `adam_ema`: Adam, the average of its parameters and a short copy of them, in
// place and for all parameters together, after one read of the gradients for the skip flag.
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "base/error.h"

namespace sidfast {

// Columns of `count` entries, one for each parameter: dense tensors in one element order.
struct AdamTable {
  int64_t count;
  const int64_t* ends;             // elements of this parameter and all before it
  float* const* parameters;
  float* const* gradients;         // null entry: the parameter is not updated, only averaged
  float* const* first_moments;     // null column: beta1 is 0
  float* const* second_moments;    // null entry where the gradient is
  float* const* steps;             // one number each, likewise
  float* const* averages;          // null column: none
  void* const* copies;             // null column: none
};

// Adam (arXiv 1412.6980) or AdamW (arXiv 1711.05101), then
// average <- parameter + average_beta (average - parameter).
struct AdamSettings {
  double lr, beta1, beta2, eps, weight_decay, average_beta;
  bool decoupled;     // weight decay of AdamW; else added to the gradient
  bool clamp;         // NaN to 0 and infinities to +-1e5 in the gradients, instead of skipping
  Dtype copy_dtype;
};

struct AdamEmaKernels {
  // Where a gradient is not finite and `clamp` is off, `skipped` alone changes, by one.
  Status (*step)(const AdamTable&, const AdamSettings&, int64_t* skipped, int threads);
};

namespace generic {
extern const AdamEmaKernels adam_ema_kernels;
}
namespace avx2 {
extern const AdamEmaKernels adam_ema_kernels;
}
namespace avx512 {
extern const AdamEmaKernels adam_ema_kernels;
}

}  // namespace sidfast
