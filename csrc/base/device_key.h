// A NoiseKey whose seed and index stay on the device, so that a captured graph replays with the
// numbers they hold by then.
#pragma once

#include <cstdint>

namespace sidfast::cuda {

struct DeviceKey {
  const int64_t* seed;
  const int64_t* index;  // one per sample
  uint32_t stream;
};

}  // namespace sidfast::cuda
