// CUDA kernels of the room `adam_ema`; the mathematics is that of adam_ema.h, and every pointer is to
// the device.
#pragma once

#include "adam_ema/adam_ema.h"

namespace sidfast::cuda {

// Elements of a parameter that a block works on.
inline constexpr int64_t kAdamPiece = 4096;

// Columns of `count` entries, one for each parameter: dense tensors in one element order, a null
// entry where there is none.
struct AdamColumns {
  int64_t count;
  const int64_t* sizes;
  float* const* parameters;
  float* const* first_moments;
  float* const* second_moments;
  float* const* steps;  // one number each
  float* const* averages;
  void* const* copies;
  float* const* gradients;  // null entry: the parameter is not updated, only averaged
};

// Columns of `count` entries, one for each piece.
struct AdamPieces {
  int64_t count;
  const int32_t* parameters;  // whose it is
  const int32_t* places;      // among that parameter's
};

// What is read from the device instead of AdamSettings; float32, or float64 where `wide` is set.
struct AdamNumber {
  const void* p;  // null: AdamSettings has it
  bool wide;
};

// Floats of workspace that one step needs.
int64_t adam_workspace(int64_t parameters);

// Three launches; two where gradients are clamped.
Status adam_ema(const AdamColumns&, const AdamPieces&, const AdamSettings&, const AdamNumber& lr,
                const AdamNumber& average_beta, int64_t* skipped, float* workspace, void* stream);

}  // namespace sidfast::cuda
