// Where a batch's keyed noise comes from.
#pragma once

#include <cstdint>

namespace sidfast {

struct NoiseKey {
  uint64_t seed;
  const int64_t* index;  // one per sample
  uint32_t stream;
};

}  // namespace sidfast
