// CUDA kernels of the room `score_losses`; the mathematics is that of score_losses.h, and every
// pointer is to the device.
#pragma once

#include "base/device_key.h"
#include "score_losses/score_losses.h"

namespace sidfast::cuda {

// Doubles of workspace that one call needs, one of raw outputs, whatever their type, or another: 0
// where a sample stays on the chip between its sums and its gradients. Which samples do depends on
// their size and type and on the current device alone.
int64_t workspace(Dtype, const RowShape&);
int64_t workspace_raw(const RowShape&);

Status sid(const SidArguments&, Dtype, const RowShape&, double* workspace, void* stream);
Status vsd(const VsdArguments&, Dtype, const RowShape&, double* workspace, void* stream);
Status dsm(const DsmArguments&, Dtype, const RowShape&, double* workspace, void* stream);

// Images and noisy are float32 or of the raw outputs' type; noisy serves where the key's seed is
// null. `channels` are those of samples that are stored as HW,C, else 1: noise is numbered as C,HW.
Status sid_raw(const SidArguments&, const RawArguments&, const DeviceKey&, Dtype images,
               Dtype networks, const RowShape&, int64_t channels, double* workspace,
               void* stream);
Status dsm_raw(const DsmArguments&, const RawArguments&, const DeviceKey&, Dtype images,
               Dtype networks, const RowShape&, int64_t channels, double* workspace,
               void* stream);

// Gradients that were made for the upstream gradient `made_for` of every sample, to become those for
// upstream[i * stride] of sample i, in place.
inline constexpr int kMostGradients = 4;
struct Rescaling {
  int count;
  void* gradients[kMostGradients];
  Dtype dtypes[kMostGradients];
  const float* upstream;
  int64_t stride;
  float made_for;
};

// A sample whose upstream is `made_for` is neither read nor written.
Status rescale(const Rescaling&, const RowShape&, void* stream);

}  // namespace sidfast::cuda
