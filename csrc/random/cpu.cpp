#include "random/random.h"

#include "base/parallel.h"
#include "random/noise.h"

namespace sidfast::SIDFAST_ISA {
namespace {

constexpr int64_t kChunk = 2048;            // elements made at a time, 8 KB
constexpr int64_t kSerial = 4096;           // fewer elements than this are not worth a thread
constexpr int64_t kTileChannels = 16;       // at most, of a channels-last tile
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

// Either side stored as HW,C: runs of one channel are gathered, computed as any other, scattered.
template <class Kind, class Op, class In, class Out>
void sweep_tiles(const Op& op, const In* x, Out* out, const ImageShape& shape, const NoiseKey& key,
                 int threads) {
  const int64_t channels = shape.channels, pixels = shape.pixels;
  const int64_t tile_channels = min64(channels, kTileChannels);
  const int64_t tile_pixels = kChunk / tile_channels / kStep * kStep;
  const int64_t across = ceil_div(channels, tile_channels), along = ceil_div(pixels, tile_pixels);
  parallel_units(shape.samples * across * along, threads, [&](int64_t unit) {
    alignas(64) typename Kind::Value buffer[kChunk + kOvershoot];
    alignas(64) In gathered[kChunk];
    alignas(64) Out scattered[kChunk];
    const int64_t sample = unit / (across * along);
    const int64_t c0 = unit / along % across * tile_channels, p0 = unit % along * tile_pixels;
    const int64_t c1 = min64(channels, c0 + tile_channels), count = min64(tile_pixels, pixels - p0);
    const int64_t base = sample * channels * pixels;
    Op mine = op;
    mine.enter(sample);
    for (int64_t c = c0; c < c1; ++c) {
      const int64_t planar = c * pixels + p0, interleaved = base + p0 * channels + c;
      const In* source = x ? x + base + planar : nullptr;
      if (x && shape.input_channels_last) {
        for (int64_t p = 0; p < count; ++p) gathered[p] = x[interleaved + p * channels];
        source = gathered;
      }
      Out* target = shape.output_channels_last ? scattered : out + base + planar;
      const auto* noise = fill<Kind>(buffer, sample_key(key, sample), planar, count);
      apply(mine, noise, source, target, count);
      if (shape.output_channels_last) {
        for (int64_t p = 0; p < count; ++p) out[interleaved + p * channels] = scattered[p];
      }
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
