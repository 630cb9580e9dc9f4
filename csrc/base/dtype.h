// Storage types of tensors. Arithmetic is float32 whatever the storage.
#pragma once

#include <cstdint>

namespace sidfast {

enum class Dtype : int { float32 = 0, bfloat16 = 1, float16 = 2 };

struct bfloat16 {
  uint16_t bits;
};

struct float16 {
  uint16_t bits;
};

}  // namespace sidfast
