// Between planes (one run of pixels per channel) and pixels (one run of channels per pixel).
#pragma once

#include "base/simd.h"

namespace sidfast::SIDFAST_ISA {

inline constexpr int kMostChannels = 16;  // that one call moves

template <class Move>
SIDFAST_INLINE void for_channels_of_pixels(int64_t channels, int64_t count, const Move& move) {
  // A number known to the compiler unrolls the inner loop; 3 is images, 16 a tile of a network.
  const auto unrolled = [&](auto known) {
    for (int64_t p = 0; p < count; ++p) {
#pragma GCC unroll 16
      for (int c = 0; c < decltype(known)::value; ++c) move(p, c);
    }
  };
  if (channels == 3) {
    unrolled(std::integral_constant<int, 3>{});
  } else if (channels == kMostChannels) {
    unrolled(std::integral_constant<int, kMostChannels>{});
  } else {
    for (int64_t p = 0; p < count; ++p) {
      for (int64_t c = 0; c < channels; ++c) move(p, c);
    }
  }
}

// out[p * stride + c] = planes[c][p]
template <class T>
void to_pixels(const T* const* planes, int64_t channels, int64_t count, T* out, int64_t stride) {
  for_channels_of_pixels(channels, count,
                         [=](int64_t p, int64_t c) { out[p * stride + c] = planes[c][p]; });
}

// planes[c][p] = x[p * stride + c]
template <class T>
void to_planes(const T* x, int64_t stride, int64_t channels, int64_t count, T* const* planes) {
  for_channels_of_pixels(channels, count,
                         [=](int64_t p, int64_t c) { planes[c][p] = x[p * stride + c]; });
}

}  // namespace sidfast::SIDFAST_ISA
