// CUDA's language and launches, for kernels that run on a CPU: see emulator.h.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda_runtime_api.h"
#include "emulator.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local

using dim3 = emulator::Index;

template <const dim3& (*now)()>
struct Builtin {
  template <unsigned dim3::*axis>
  struct Along {
    operator unsigned() const { return now().*axis; }
  };
  Along<&dim3::x> x;
  Along<&dim3::y> y;
};
inline constexpr Builtin<emulator::thread_index> threadIdx{};
inline constexpr Builtin<emulator::block_index> blockIdx{};
inline constexpr Builtin<emulator::block_size> blockDim{};
inline constexpr Builtin<emulator::grid_size> gridDim{};

inline void __syncthreads() { emulator::block_barrier(); }

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  uint64_t* slots = emulator::warp_mailbox();
  static_assert(sizeof value <= sizeof *slots);
  std::memcpy(slots + emulator::lane(), &value, sizeof value);
  emulator::warp_barrier();
  std::memcpy(&value, slots + (emulator::lane() ^ static_cast<unsigned>(mask)), sizeof value);
  emulator::warp_barrier();
  return value;
}

inline float __uint_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline uint32_t __float_as_uint(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension };

struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    struct {
      unsigned x, y, z;
    } clusterDim;
  } val;
};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments... arguments) {
  const unsigned cluster = config->numAttrs ? config->attrs->val.clusterDim.x : 1;
  if (config->gridDim.x % cluster != 0) return cudaErrorInvalidValue;
  emulator::run({config->gridDim, config->blockDim, cluster}, [&] { kernel(arguments...); });
  return cudaSuccess;
}
