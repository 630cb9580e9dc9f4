// CUDA kernels of the room `score_losses`; the mathematics is that of score_losses.h, and every
// pointer is to the device.
#pragma once

#include "score_losses/score_losses.h"

namespace sidfast::cuda {

// Doubles of workspace that one call needs: 0 where a sample stays on the chip between its sums and
// its gradients. Which samples do depends on their size, type and the current device alone.
int64_t workspace(Dtype, const RowShape&);

Status sid(const SidArguments&, Dtype, const RowShape&, double* workspace, void* stream);
Status dsm(const DsmArguments&, Dtype, const RowShape&, double* workspace, void* stream);

}  // namespace sidfast::cuda
