// Kernel launches whose errors come back as a status. Nothing here allocates or waits.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "base/error.h"

namespace sidfast::cuda {

inline constexpr int64_t kMostBlocks = 0x7fffffff;   // along x
inline constexpr int64_t kMostBlocksY = 0xffff;      // along y

__host__ __device__ inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
__host__ __device__ inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

inline Status status_of(cudaError_t error) {
  return error == cudaSuccess ? kOk : Status{Code::unsupported, cudaGetErrorString(error)};
}

struct Extent {
  dim3 grid;
  dim3 block;
  int cluster = 1;  // blocks along x that share their memory
};

template <class... Parameters>
Status launch(void (*kernel)(Parameters...), const Extent& extent, void* stream,
              Parameters... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(extent.cluster);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = extent.grid;
  config.blockDim = extent.block;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &attribute;
  config.numAttrs = extent.cluster > 1 ? 1 : 0;
  return status_of(cudaLaunchKernelEx(&config, kernel, arguments...));
}

}  // namespace sidfast::cuda
