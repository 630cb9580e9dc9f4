#include "random/random.h"

#include "base/interleave.h"
#include "base/parallel.h"
#include "base/noise.h"

namespace sidfast::SIDFAST_ISA {
namespace {

constexpr int64_t kChunk = 2048;            // elements made at a time, 8 KB
constexpr int64_t kSerial = 16384;          // fewer elements a thread do not repay waking it
constexpr int64_t kTile = 256;              // pixels of a channels-last tile
constexpr const float* kNoInput = nullptr;

int useful_threads(const ImageShape& shape, int threads) {
  const int64_t total = shape.samples * shape.channels * shape.pixels;
  return static_cast<int>(max64(1, min64(threads, total / kSerial)));
}

SampleKey sample_key(const NoiseKey& key, int64_t sample) {
  return {key.seed, static_cast<uint64_t>(key.index[sample]), key.stream};
}

// Per-sample constants of an operation, then its arithmetic on one vector.
struct Copy {
  SIDFAST_INLINE void enter(int64_t) {}
  SIDFAST_INLINE F operator()(F noise, F) const { return noise; }
};

struct ToUniform {
  SIDFAST_INLINE void enter(int64_t) {}
  SIDFAST_INLINE F operator()(U word, F) const {
    return from_signed(shift_right<8>(word)) * F(0x1p-24f);
  }
};

struct AddNoise {
  const float* sigma;
  const float* scale;
  F sample_sigma = F(0.0f), sample_scale = F(1.0f);
  SIDFAST_INLINE void enter(int64_t sample) {
    sample_sigma = F(sigma[sample]);
    if (scale) sample_scale = F(scale[sample]);
  }
  SIDFAST_INLINE F operator()(F noise, F x) const {
    return fma(sample_sigma, noise, x) * sample_scale;
  }
};

struct Dropout {
  U threshold;
  F factor;
  SIDFAST_INLINE void enter(int64_t) {}
  SIDFAST_INLINE F operator()(U word, F x) const {
    return select(at_least(word, threshold), x * factor, F(0.0f));
  }
};

SIDFAST_INLINE F load_noise(const float* p) { return load(p); }
SIDFAST_INLINE U load_noise(const uint32_t* p) { return load_words(p); }

// `noise` may be read past `count`; x may be null when the operation takes no input.
template <class Op, class Noise, class In, class Out>
SIDFAST_INLINE void apply(const Op& op, const Noise* noise, const In* x, Out* out, int64_t count) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    store(out + i, op(load_noise(noise + i), x ? load(x + i) : F(0.0f)));
  }
  if (i < count) {
    const int64_t left = count - i;
    const F input = x ? load_first(x + i, left) : F(0.0f);
    store_first(out + i, op(load_noise(noise + i), input), left);
  }
}

template <class Kind, class Op, class In, class Out>
void sweep_planar(const Op& op, const In* x, Out* out, const ImageShape& shape,
                  const NoiseKey& key, int threads) {
  const int64_t size = shape.channels * shape.pixels;
  const int64_t chunks = ceil_div(size, kChunk);
  parallel_units(shape.samples * chunks, threads, [&](int64_t unit) {
    alignas(64) typename Kind::Value buffer[kChunk + kOvershoot];
    const int64_t sample = unit / chunks, start = unit % chunks * kChunk;
    const int64_t count = min64(kChunk, size - start), at = sample * size + start;
    Op mine = op;
    mine.enter(sample);
    const auto* noise = fill<Kind>(buffer, sample_key(key, sample), start, count);
    apply(mine, noise, x ? x + at : nullptr, out + at, count);
  });
}

// Either side stored as HW,C, in tiles of channels x pixels. Each tile crosses between planes and
// pixels once: the noise if both sides are HW,C, else the side that is.
template <class Kind, class Op, class In, class Out>
void sweep_tiles(const Op& op, const In* x, Out* out, const ImageShape& shape, const NoiseKey& key,
                 int threads) {
  using Noise = typename Kind::Value;
  constexpr int64_t kPitch = kTile + kOvershoot;
  const int64_t channels = shape.channels, pixels = shape.pixels;
  const int64_t across = ceil_div(channels, kMostChannels), along = ceil_div(pixels, kTile);
  parallel_units(shape.samples * across * along, threads, [&](int64_t unit) {
    alignas(64) Noise buffer[kMostChannels * kPitch];
    alignas(64) Noise mixed[kMostChannels * kTile + kLanes];
    alignas(64) In in_buffer[kMostChannels * kTile];
    alignas(64) Out out_buffer[kMostChannels * kTile];
    const Noise* noise[kMostChannels];
    In* in_planes[kMostChannels];
    const Out* out_planes[kMostChannels];
    const int64_t sample = unit / (across * along);
    const int64_t c0 = unit / along % across * kMostChannels, p0 = unit % along * kTile;
    const int64_t width = min64(kMostChannels, channels - c0), count = min64(kTile, pixels - p0);
    const int64_t base = sample * channels * pixels;
    const int64_t planar = base + c0 * pixels + p0, interleaved = base + p0 * channels + c0;
    Op mine = op;
    mine.enter(sample);
    for (int64_t c = 0; c < width; ++c) {
      noise[c] = fill<Kind>(buffer + c * kPitch, sample_key(key, sample), planar - base + c * pixels,
                            count);
      in_planes[c] = in_buffer + c * kTile;
      out_planes[c] = out_buffer + c * kTile;
    }
    if (shape.input_channels_last && shape.output_channels_last) {
      to_pixels(noise, width, count, mixed, width);
      const bool whole = width == channels;
      const int64_t runs = whole ? 1 : count, length = whole ? count * channels : width;
      for (int64_t run = 0; run < runs; ++run) {
        const int64_t at = interleaved + run * channels;
        apply(mine, mixed + run * length, x + at, out + at, length);
      }
      return;
    }
    if (shape.input_channels_last) to_planes(x + interleaved, channels, width, count, in_planes);
    for (int64_t c = 0; c < width; ++c) {
      const In* from = shape.input_channels_last ? in_planes[c] : x + planar + c * pixels;
      Out* to = shape.output_channels_last ? out_buffer + c * kTile : out + planar + c * pixels;
      apply(mine, noise[c], from, to, count);
    }
    if (shape.output_channels_last) {
      to_pixels(out_planes, width, count, out + interleaved, channels);
    }
  });
}

template <class Kind, class Op, class In, class Out>
Status sweep(const Op& op, const In* x, Out* out, const ImageShape& shape, const NoiseKey& key,
             int threads) {
  threads = useful_threads(shape, threads);
  if (shape.input_channels_last || shape.output_channels_last) {
    sweep_tiles<Kind>(op, x, out, shape, key, threads);
  } else {
    sweep_planar<Kind>(op, x, out, shape, key, threads);
  }
  return kOk;
}

Status normal(void* out, Dtype dtype, const ImageShape& shape, const NoiseKey& key, int threads) {
  return typed(dtype, [&](auto tag) {
    using T = decltype(tag);
    return sweep<Normals>(Copy{}, kNoInput, static_cast<T*>(out), shape, key, threads);
  });
}

Status uniform(float* out, const ImageShape& shape, const NoiseKey& key, int threads) {
  return sweep<Bits>(ToUniform{}, kNoInput, out, shape, key, threads);
}

Status integers(int64_t* out, uint64_t high, const ImageShape& shape, const NoiseKey& key,
                int threads) {
  const int64_t size = shape.channels * shape.pixels, chunks = ceil_div(size, kChunk);
  parallel_units(shape.samples * chunks, useful_threads(shape, threads), [&](int64_t unit) {
    alignas(64) uint32_t buffer[kChunk + kOvershoot];
    const int64_t sample = unit / chunks, start = unit % chunks * kChunk;
    const int64_t count = min64(kChunk, size - start);
    const uint32_t* words = fill<Bits>(buffer, sample_key(key, sample), start, count);
    int64_t* to = out + sample * size + start;
    for (int64_t i = 0; i < count; ++i) {
      // high = 2^32 keeps the word: the product's upper half, in 64 bits.
      to[i] = static_cast<int64_t>(words[i] * high >> 32);
    }
  });
  return kOk;
}

Status add_noise(const void* x, Dtype x_dtype, void* out, Dtype out_dtype, const float* sigma,
                 const float* scale, const ImageShape& shape, const NoiseKey& key, int threads) {
  const AddNoise op{sigma, scale};
  return typed(x_dtype, [&](auto in) {
    return typed(out_dtype, [&](auto tag) {
      return sweep<Normals>(op, static_cast<const decltype(in)*>(x),
                            static_cast<decltype(tag)*>(out), shape, key, threads);
    });
  });
}

Status dropout(const void* x, void* out, Dtype dtype, uint64_t threshold, float factor,
               const ImageShape& shape, const NoiseKey& key, int threads) {
  if (threshold > 0xffffffffu) return {Code::unsupported, "dropout: threshold beyond 2^32 - 1"};
  const Dropout op{U(static_cast<uint32_t>(threshold)), F(factor)};
  return typed(dtype, [&](auto tag) {
    using T = decltype(tag);
    return sweep<Bits>(op, static_cast<const T*>(x), static_cast<T*>(out), shape, key, threads);
  });
}

}  // namespace

const RandomKernels random_kernels = {normal, uniform, integers, add_noise, dropout};

}  // namespace sidfast::SIDFAST_ISA
