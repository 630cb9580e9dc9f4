#include "random/cuda.h"

#include "base/launch.cuh"
#include "base/numbers.cuh"
#include "base/storage.cuh"

namespace sidfast::cuda {
namespace {

constexpr int kThreads = 256;

// Blocks that share a multiprocessor: as many as leave a thread of so many elements its registers,
// of which code for sm_100 takes more.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kFewBlocks = 2;
#else
constexpr int kFewBlocks = 3;
#endif
template <int elements>
constexpr int kBlocks = elements > 4 ? kFewBlocks : 4;

struct Bits {  // a kind of numbers, as Normals
  using Value = U;
  static SIDFAST_INLINE void from_words(const U (&words)[kBlock], U* out) {
#pragma unroll
    for (int i = 0; i < kBlock; ++i) out[i] = words[i];
  }
};

// Per-sample constants of an operation, then its arithmetic on one element.
struct Copy {
  static constexpr bool kReads = false;
  SIDFAST_INLINE void enter(int64_t) {}
  SIDFAST_INLINE float operator()(F noise, float) const { return noise.v; }
};

struct ToUniform {
  static constexpr bool kReads = false;
  SIDFAST_INLINE void enter(int64_t) {}
  SIDFAST_INLINE float operator()(U word, float) const {
    return (from_signed(shift_right<8>(word)) * F(0x1p-24f)).v;
  }
};

struct AddNoise {
  static constexpr bool kReads = true;
  const float* sigma;
  const float* scale;
  float sample_sigma = 0.0f, sample_scale = 1.0f;
  SIDFAST_INLINE void enter(int64_t sample) {
    sample_sigma = sigma[sample];
    if (scale) sample_scale = scale[sample];
  }
  SIDFAST_INLINE float operator()(F noise, float x) const {
    return fmaf(sample_sigma, noise.v, x) * sample_scale;
  }
};

struct Dropout {
  static constexpr bool kReads = true;
  uint32_t threshold;
  float factor;
  SIDFAST_INLINE void enter(int64_t) {}
  SIDFAST_INLINE float operator()(U word, float x) const {
    return word.v >= threshold ? x * factor : 0.0f;
  }
};

// each(sample, its key, unit) for the units of work of all samples: along x those of a sample, along
// y the samples.
template <class Each>
SIDFAST_INLINE void over_units(int64_t samples, int64_t units, const DeviceKey& key,
                               const Each& each) {
  const uint64_t seed = static_cast<uint64_t>(*key.seed);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  int64_t sample = static_cast<int64_t>(blockIdx.y) * blockDim.y + threadIdx.y;
  for (; sample < samples; sample += static_cast<int64_t>(gridDim.y) * blockDim.y) {
    const SampleKey sample_key{seed, static_cast<uint64_t>(key.index[sample]), key.stream};
    for (int64_t unit = first; unit < units; unit += step) each(sample, sample_key, unit);
  }
}

Extent extent(int64_t samples, int64_t units) {
  unsigned across = 1;
  while (across < units && across < kThreads) across *= 2;
  const unsigned down = kThreads / across;
  return {dim3(static_cast<unsigned>(least(ceil_div(units, across), kMostBlocks)),
               static_cast<unsigned>(least(ceil_div(samples, down), kMostBlocksY))),
          dim3(across, down)};
}

// Rows of `size` elements, and which tensors have them aligned.
struct Rows {
  int64_t samples;
  int64_t size;
  bool x_aligned;
  bool out_aligned;
};

template <int run, class Kind, class Op>
__global__ void __launch_bounds__(kThreads, kBlocks<run>)
    planar(Op op, Values x, Values out, Rows rows, DeviceKey key) {
  over_units(rows.samples, ceil_div(rows.size, run), key,
             [&](int64_t sample, const SampleKey& sample_key, int64_t unit) {
               const int64_t start = unit * run, count = rows.size - start;
               const int64_t at = sample * rows.size + start;
               float values[run] = {};
               if constexpr (Op::kReads) {
                 typed(x, [&](const auto* p) {
                   load_first<run>(p + at, count, rows.x_aligned, values);
                 });
               }
               typename Kind::Value noise[run];
               numbers<Kind, run>(sample_key, start, noise);
               Op mine = op;
               mine.enter(sample);
#pragma unroll
               for (int i = 0; i < run; ++i) values[i] = mine(noise[i], values[i]);
               typed(out, [&](auto* p) {
                 store_first<run>(p + at, count, rows.out_aligned, values);
               });
             });
}

__global__ void __launch_bounds__(kThreads, 4)
    whole_numbers(int64_t* out, uint64_t high, int64_t samples, int64_t size, DeviceKey key) {
  over_units(samples, ceil_div(size, kBlock), key,
             [&](int64_t sample, const SampleKey& sample_key, int64_t unit) {
               const int64_t start = unit * kBlock;
               U words[kBlock];
               numbers<Bits, kBlock>(sample_key, start, words);
#pragma unroll
               for (int i = 0; i < kBlock; ++i) {
                 if (start + i < size) {
                   // high = 2^32 keeps the word: the product's upper half, in 64 bits.
                   out[sample * size + start + i] =
                       static_cast<int64_t>(words[i].v * high >> 32);
                 }
               }
             });
}

// One tile of four pixels x `width` channels of an image stored as C,HW or as HW,C; element i of
// pixel p and channel c is p * width + c.
template <int width>
struct Tile {
  static constexpr int kPixels = 4;
  static constexpr int kSize = kPixels * width;
  int64_t base, channels, pixels, c, p;  // c and p: its first channel and pixel

  // access(offset, index of its first element, their distance) for each run of four elements.
  template <class Access>
  SIDFAST_INLINE void runs(bool channels_last, const Access& access) const {
    if (!channels_last) {
#pragma unroll
      for (int i = 0; i < width; ++i) access(base + (c + i) * pixels + p, i, width);
    } else if (width == 3) {
#pragma unroll
      for (int i = 0; i < width; ++i) access(base + p * width + 4 * i, 4 * i, 1);
    } else {
#pragma unroll
      for (int i = 0; i < kPixels; ++i) access(base + (p + i) * channels + c, i * width, 1);
    }
  }

  SIDFAST_INLINE void read(const Values& x, bool channels_last, float* values) const {
    typed(x, [&](const auto* from) {
      runs(channels_last, [&](int64_t at, int first, int distance) {
        float run[4];
        load<4>(from + at, run);
#pragma unroll
        for (int i = 0; i < 4; ++i) values[first + i * distance] = run[i];
      });
    });
  }

  SIDFAST_INLINE void write(const Values& out, bool channels_last, const float* values) const {
    typed(out, [&](auto* to) {
      runs(channels_last, [&](int64_t at, int first, int distance) {
        float run[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) run[i] = values[first + i * distance];
        store<4>(to + at, run);
      });
    });
  }
};

template <int width, class Kind, class Op>
__global__ void __launch_bounds__(kThreads, kBlocks<4 * width>)
    tiles(Op op, Values x, Values out, ImageShape shape, DeviceKey key) {
  using Tile = cuda::Tile<width>;
  const int64_t across = shape.channels / width;
  over_units(shape.samples, across * (shape.pixels / Tile::kPixels), key,
             [&](int64_t sample, const SampleKey& sample_key, int64_t unit) {
               const int64_t row = across == 1 ? unit : unit / across;
               const Tile tile{sample * shape.channels * shape.pixels, shape.channels,
                               shape.pixels, (unit - row * across) * width, row * Tile::kPixels};
               float values[Tile::kSize];
               tile.read(x, shape.input_channels_last, values);
               Op mine = op;
               mine.enter(sample);
#pragma unroll
               for (int c = 0; c < width; ++c) {
                 typename Kind::Value noise[kBlock];
                 numbers<Kind, kBlock>(sample_key, (tile.c + c) * shape.pixels + tile.p, noise);
#pragma unroll
                 for (int i = 0; i < kBlock; ++i) {
                   values[i * width + c] = mine(noise[i], values[i * width + c]);
                 }
               }
               tile.write(out, shape.output_channels_last, values);
             });
}

bool aligned(const Values& values, int64_t size) {
  if (values.dtype == Dtype::float32) {
    return rows_aligned(static_cast<const float*>(values.p), size);
  }
  return rows_aligned(static_cast<const bfloat16*>(values.p), size);
}

template <int run, class Kind, class Op>
Status sweep_planar(const Op& op, const Values& x, const Values& out, const ImageShape& shape,
                    const DeviceKey& key, void* stream) {
  const int64_t size = shape.channels * shape.pixels;
  const Rows rows{shape.samples, size, aligned(x, size), aligned(out, size)};
  return launch(planar<run, Kind, Op>, extent(shape.samples, ceil_div(size, run)), stream, op, x,
                out, rows, key);
}

template <int width, class Kind, class Op>
Status sweep_tiles(const Op& op, const Values& x, const Values& out, const ImageShape& shape,
                   const DeviceKey& key, void* stream) {
  const int64_t units = shape.channels / width * (shape.pixels / Tile<width>::kPixels);
  return launch(tiles<width, Kind, Op>, extent(shape.samples, units), stream, op, x, out, shape,
                key);
}

bool empty(const ImageShape& shape) {
  return shape.samples == 0 || shape.channels == 0 || shape.pixels == 0;
}

template <class Kind, class Op>
Status sweep(const Op& op, const Values& x, const Values& out, const ImageShape& shape,
             const DeviceKey& key, void* stream) {
  if (empty(shape)) return kOk;
  if constexpr (Op::kReads) {
    if (shape.input_channels_last || shape.output_channels_last) {
      if (!tileable(x.p, shape) || !tileable(out.p, shape)) {
        return {Code::bad_argument, "channels_last tensors that no tiles cover"};
      }
      if (shape.channels == 3) return sweep_tiles<3, Kind>(op, x, out, shape, key, stream);
      return sweep_tiles<4, Kind>(op, x, out, shape, key, stream);
    }
  }
  // Four floats or eight halves fill an access, and a warp's accesses leave no gaps.
  if (x.dtype == Dtype::float32 || out.dtype == Dtype::float32) {
    return sweep_planar<4, Kind>(op, x, out, shape, key, stream);
  }
  return sweep_planar<8, Kind>(op, x, out, shape, key, stream);
}

}  // namespace

Status normal(void* out, Dtype dtype, const ImageShape& shape, const DeviceKey& key,
              void* stream) {
  return sweep<Normals>(Copy{}, {nullptr, dtype}, {out, dtype}, shape, key, stream);
}

Status uniform(float* out, const ImageShape& shape, const DeviceKey& key, void* stream) {
  if (empty(shape)) return kOk;
  return sweep_planar<4, Bits>(ToUniform{}, {nullptr, Dtype::float32}, {out, Dtype::float32},
                               shape, key, stream);
}

Status integers(int64_t* out, uint64_t high, const ImageShape& shape, const DeviceKey& key,
                void* stream) {
  if (empty(shape)) return kOk;
  const int64_t size = shape.channels * shape.pixels;
  return launch(whole_numbers, extent(shape.samples, ceil_div(size, kBlock)), stream, out, high,
                shape.samples, size, key);
}

Status add_noise(const void* x, Dtype x_dtype, void* out, Dtype out_dtype, const float* sigma,
                 const float* scale, const ImageShape& shape, const DeviceKey& key,
                 void* stream) {
  return sweep<Normals>(AddNoise{sigma, scale}, {const_cast<void*>(x), x_dtype}, {out, out_dtype},
                        shape, key, stream);
}

Status dropout(const void* x, void* out, Dtype dtype, uint64_t threshold, float factor,
               const ImageShape& shape, const DeviceKey& key, void* stream) {
  if (threshold > 0xffffffffu) return {Code::unsupported, "dropout: threshold beyond 2^32 - 1"};
  return sweep<Bits>(Dropout{static_cast<uint32_t>(threshold), factor},
                     {const_cast<void*>(x), dtype}, {out, dtype}, shape, key, stream);
}

}  // namespace sidfast::cuda
