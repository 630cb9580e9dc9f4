// bfloat16, for kernels that run on a CPU.
#pragma once

#include "cuda_fp16.h"

using __nv_bfloat16 = sidfast::bfloat16;

inline __nv_bfloat16 __float2bfloat16_rn(float x) { return sidfast_narrowed<__nv_bfloat16>(x); }
inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
