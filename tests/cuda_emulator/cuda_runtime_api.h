// The little of CUDA's runtime that our launchers use, for kernels that run on a CPU: see emulator.h.
#pragma once

#include <cstdlib>

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum cudaDeviceAttr { cudaDevAttrClusterLaunch = 120 };

struct cudaFuncAttributes {
  int ptxVersion;
};

inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid value";
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  return device <= 0 ? cudaSuccess : cudaErrorInvalidValue;  // -1 is torch's number of the CPU
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) { return cudaRuntimeGetVersion(version); }

// The device is an sm_90, unless SIDFAST_EMULATED_ARCH says 80.
inline int emulated_architecture() {
  const char* chosen = std::getenv("SIDFAST_EMULATED_ARCH");
  return chosen ? std::atoi(chosen) : 90;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = emulated_architecture() >= 90;
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
  attributes->ptxVersion = emulated_architecture();
  return cudaSuccess;
}
