#include "group_norm/group_norm.h"

#include <cstdlib>
#include <type_traits>

#include "base/parallel.h"
#include "base/sigmoid.h"

namespace sidfast::SIDFAST_ISA {
namespace {

constexpr int64_t kSerial = 16384;    // fewer elements a thread do not repay waking it
constexpr int64_t kRunPixels = 128;   // summed in one go; the sums of runs are summed after

// A tile of neighbouring channels: `width` whole vectors, or what is left of one.
template <int vectors>
struct Whole {
  static constexpr int width = vectors;
  template <class T>
  SIDFAST_INLINE F get(const T* p, int v) const { return load(p + v * kLanes); }
  template <class T>
  SIDFAST_INLINE void put(T* p, int v, F value) const { store(p + v * kLanes, value); }
};
struct Rest {
  static constexpr int width = 1;
  int64_t count;
  template <class T>
  SIDFAST_INLINE F get(const T* p, int) const { return load_first(p, count); }
  template <class T>
  SIDFAST_INLINE void put(T* p, int, F value) const { store_first(p, value, count); }
};

template <class Body>
SIDFAST_INLINE void for_tiles(int64_t channels, const Body& body) {
  int64_t c = 0;
  for (; c + 2 * kLanes <= channels; c += 2 * kLanes) body(c, Whole<2>{});
  for (; c + kLanes <= channels; c += kLanes) body(c, Whole<1>{});
  if (c < channels) body(c, Rest{channels - c});
}

// sums[k][v] += value(p)[k][v] over pixels p, `sums` vectors per channel vector.
template <int sums, class Tile>
struct Totals {
  F run[sums][Tile::width], all[sums][Tile::width];

  Totals() {
    for (int k = 0; k < sums; ++k)
      for (int v = 0; v < Tile::width; ++v) run[k][v] = all[k][v] = F(0.0f);
  }

  template <class Each>
  SIDFAST_INLINE void over(int64_t pixels, const Each& each) {
    for (int64_t start = 0; start < pixels; start += kRunPixels) {
      const int64_t end = min64(pixels, start + kRunPixels);
      for (int64_t p = start; p < end; ++p) {
#pragma GCC unroll 2
        for (int v = 0; v < Tile::width; ++v) each(p, v);
      }
      for (int k = 0; k < sums; ++k) {
        for (int v = 0; v < Tile::width; ++v) {
          all[k][v] = all[k][v] + run[k][v];
          run[k][v] = F(0.0f);
        }
      }
    }
  }
};

// One sample's view of the arguments and what is constant per channel in it.
template <class T>
struct Sample {
  const GroupNormArguments& given;
  const GroupNormShape& shape;
  const T* x;
  const float *offset, *scale, *shift;
  float *mean, *rstd;
  // y = act(slope x + intercept), normalised = spread x + centre, per channel.
  float *slope, *intercept, *spread, *centre;
  float *first, *second, *third;  // sums per channel

  Sample(const GroupNormArguments& a, const GroupNormShape& s, int64_t sample, float* scratch)
      : given(a), shape(s), x(static_cast<const T*>(a.x) + sample * s.pixels * s.channels) {
    const auto row = [&](const float* p) { return p ? p + sample * s.channels : nullptr; };
    offset = row(a.offset), scale = row(a.scale), shift = row(a.shift);
    mean = a.mean + sample * s.groups, rstd = a.rstd + sample * s.groups;
    float** const parts[] = {&slope, &intercept, &spread, &centre, &first, &second, &third};
    for (float** part : parts) *part = scratch, scratch += s.channels;
  }
  static constexpr int kParts = 7;

  int64_t wide() const { return shape.channels / shape.groups; }
  double count() const { return static_cast<double>(wide() * shape.pixels); }
  float offset_of(int64_t c) const { return offset ? offset[c] : 0.0f; }
  float gain_of(int64_t c) const { return given.weight[c] * (scale ? 1.0f + scale[c] : 1.0f); }

  void find_statistics() const {
    for_tiles(shape.channels, [&](int64_t c, auto tile) {
      Totals<1, decltype(tile)> t;
      t.over(shape.pixels, [&](int64_t p, int v) {
        t.run[0][v] = t.run[0][v] + tile.get(x + p * shape.channels + c, v);
      });
      for (int v = 0; v < tile.width; ++v) tile.put(first + c, v, t.all[0][v]);
    });
    for (int64_t g = 0; g < shape.groups; ++g) {
      double sum = 0.0;
      for (int64_t c = g * wide(); c < (g + 1) * wide(); ++c) {
        sum += first[c] + static_cast<double>(offset_of(c)) * static_cast<double>(shape.pixels);
      }
      mean[g] = static_cast<float>(sum / count());
      for (int64_t c = g * wide(); c < (g + 1) * wide(); ++c) centre[c] = offset_of(c) - mean[g];
    }
    for_tiles(shape.channels, [&](int64_t c, auto tile) {
      Totals<1, decltype(tile)> t;
      F shifted_by[tile.width];
      for (int v = 0; v < tile.width; ++v) shifted_by[v] = tile.get(centre + c, v);
      t.over(shape.pixels, [&](int64_t p, int v) {
        const F d = tile.get(x + p * shape.channels + c, v) + shifted_by[v];
        t.run[0][v] = fma(d, d, t.run[0][v]);
      });
      for (int v = 0; v < tile.width; ++v) tile.put(second + c, v, t.all[0][v]);
    });
    for (int64_t g = 0; g < shape.groups; ++g) {
      double sum = 0.0;
      for (int64_t c = g * wide(); c < (g + 1) * wide(); ++c) sum += second[c];
      rstd[g] = static_cast<float>(1.0 / __builtin_sqrt(sum / count() + given.eps));
    }
  }

  void find_lines() const {
    for (int64_t c = 0; c < shape.channels; ++c) {
      const int64_t g = c / wide();
      spread[c] = rstd[g];
      centre[c] = (offset_of(c) - mean[g]) * rstd[g];
      slope[c] = rstd[g] * gain_of(c);
      intercept[c] = centre[c] * gain_of(c) + (scale ? given.bias[c] * (1.0f + scale[c]) + shift[c]
                                                     : given.bias[c]);
    }
  }

  template <bool silu>
  void write(T* y) const {
    for_tiles(shape.channels, [&](int64_t c, auto tile) {
      F a[tile.width], b[tile.width];
      for (int v = 0; v < tile.width; ++v) {
        a[v] = tile.get(slope + c, v);
        b[v] = tile.get(intercept + c, v);
      }
      for (int64_t p = 0; p < shape.pixels; ++p) {
        const int64_t at = p * shape.channels + c;
#pragma GCC unroll 2
        for (int v = 0; v < tile.width; ++v) {
          const F n = fma(tile.get(x + at, v), a[v], b[v]);
          tile.put(y + at, v, silu ? n * sigmoid(n) : n);
        }
      }
    });
  }

  // inner = dL/dn times the slope of act, and per channel its sums: alone (first) and with the
  // normalised values (second).
  template <bool silu>
  void find_inner(const T* gradient, float* inner) const {
    for_tiles(shape.channels, [&](int64_t c, auto tile) {
      Totals<2, decltype(tile)> t;
      F a[tile.width], b[tile.width], r[tile.width], m[tile.width];
      for (int v = 0; v < tile.width; ++v) {
        a[v] = tile.get(slope + c, v);
        b[v] = tile.get(intercept + c, v);
        r[v] = tile.get(spread + c, v);
        m[v] = tile.get(centre + c, v);
      }
      t.over(shape.pixels, [&](int64_t p, int v) {
        const int64_t at = p * shape.channels + c;
        const F value = tile.get(x + at, v);
        F d = tile.get(gradient + at, v);
        if (silu) {
          const F n = fma(value, a[v], b[v]);
          const F s = sigmoid(n);
          d = d * fma(n * s, F(1.0f) - s, s);
        }
        tile.put(inner + at, v, d);
        t.run[0][v] = t.run[0][v] + d;
        t.run[1][v] = fma(d, fma(value, r[v], m[v]), t.run[1][v]);
      });
      for (int v = 0; v < tile.width; ++v) {
        tile.put(first + c, v, t.all[0][v]);
        tile.put(second + c, v, t.all[1][v]);
      }
    });
  }

  // The gradient of x from `inner`, which it may overwrite; third: its sums per channel.
  void write_gradient(const float* inner, T* gradient) const {
    // gradient = slope inner - k normalised - l, with k and l constant in a group.
    for (int64_t g = 0; g < shape.groups; ++g) {
      double plain = 0.0, along = 0.0;
      for (int64_t c = g * wide(); c < (g + 1) * wide(); ++c) {
        plain += static_cast<double>(gain_of(c)) * first[c];
        along += static_cast<double>(gain_of(c)) * second[c];
      }
      const float k = static_cast<float>(rstd[g] * along / count());
      const float l = static_cast<float>(rstd[g] * plain / count());
      for (int64_t c = g * wide(); c < (g + 1) * wide(); ++c) {
        third[c] = -k;
        intercept[c] = -l;
      }
    }
    for_tiles(shape.channels, [&](int64_t c, auto tile) {
      Totals<1, decltype(tile)> t;
      F a[tile.width], b[tile.width], r[tile.width], m[tile.width], k[tile.width];
      for (int v = 0; v < tile.width; ++v) {
        a[v] = tile.get(slope + c, v);
        b[v] = tile.get(intercept + c, v);
        r[v] = tile.get(spread + c, v);
        m[v] = tile.get(centre + c, v);
        k[v] = tile.get(third + c, v);
      }
      t.over(shape.pixels, [&](int64_t p, int v) {
        const int64_t at = p * shape.channels + c;
        const F normalised = fma(tile.get(x + at, v), r[v], m[v]);
        const F d = fma(tile.get(inner + at, v), a[v], fma(normalised, k[v], b[v]));
        tile.put(gradient + at, v, d);
        t.run[0][v] = t.run[0][v] + d;
      });
      for (int v = 0; v < tile.width; ++v) tile.put(third + c, v, t.all[0][v]);
    });
  }
};

// Floats from malloc; null where there are none.
struct Scratch {
  float* const values;
  explicit Scratch(int64_t count)
      : values(static_cast<float*>(std::malloc(static_cast<size_t>(count) * sizeof(float)))) {}
  ~Scratch() { std::free(values); }
  Scratch(const Scratch&) = delete;
};

constexpr Status kNoMemory{Code::bad_argument, "out of memory for group norm"};

int useful_threads(const GroupNormShape& s, int threads) {
  const int64_t elements = s.samples * s.channels * s.pixels;
  return static_cast<int>(max64(1, min64(threads, elements / kSerial)));
}

Status check(const GroupNormShape& s) {
  if (s.groups < 1 || s.channels % s.groups) {
    return {Code::bad_argument, "channels must divide into groups"};
  }
  return kOk;
}

Status forward(const GroupNormArguments& given, void* y, Dtype dtype, const GroupNormShape& shape,
               int threads) {
  const Status status = check(shape);
  if (status.code != Code::ok || shape.pixels == 0) return status;
  return typed(dtype, [&](auto tag) {
    using T = decltype(tag);
    const int64_t lines = Sample<T>::kParts * shape.channels;
    const Scratch scratch(shape.samples * lines);
    if (!scratch.values) return kNoMemory;
    parallel_units(shape.samples, useful_threads(shape, threads), [&](int64_t number) {
      const Sample<T> sample(given, shape, number, scratch.values + number * lines);
      sample.find_statistics();
      sample.find_lines();
      T* const out = static_cast<T*>(y) + number * shape.pixels * shape.channels;
      given.silu ? sample.template write<true>(out) : sample.template write<false>(out);
    });
    return kOk;
  });
}

// Sums over samples, in their order, of what each left per channel.
void add_samples(const GroupNormArguments& given, const GroupNormGradients& gradients,
                 const GroupNormShape& shape, const float* firsts, const float* seconds) {
  for (int64_t c = 0; c < shape.channels; ++c) {
    double bias = 0.0, weight = 0.0;
    for (int64_t b = 0; b < shape.samples; ++b) {
      const int64_t at = b * shape.channels + c;
      const double gain = given.scale ? 1.0 + given.scale[at] : 1.0;
      bias += gain * firsts[at];
      weight += gain * seconds[at];
    }
    if (gradients.bias) gradients.bias[c] = static_cast<float>(bias);
    if (gradients.weight) gradients.weight[c] = static_cast<float>(weight);
  }
}

Status backward(const GroupNormArguments& given, const GroupNormGradients& gradients, Dtype dtype,
                const GroupNormShape& shape, int threads) {
  const Status status = check(shape);
  if (status.code != Code::ok) return status;
  const int64_t rows = shape.samples * shape.channels, size = shape.pixels * shape.channels;
  const Scratch sums(2 * rows);
  const auto run = [&](auto tag) {
    using T = decltype(tag);
    constexpr bool kInPlace = std::is_same_v<T, float>;  // inner values become gradients in place
    const int64_t lines = Sample<T>::kParts * shape.channels;
    const Scratch scratch(shape.samples * (lines + (kInPlace ? 0 : size)));
    if (!sums.values || !scratch.values) return kNoMemory;
    parallel_units(shape.samples, useful_threads(shape, threads), [&](int64_t number) {
      const Sample<T> sample(given, shape, number, scratch.values + number * lines);
      sample.find_lines();
      const T* const y = static_cast<const T*>(gradients.y) + number * size;
      T* const out = static_cast<T*>(gradients.x) + number * size;
      float* inner;
      if constexpr (kInPlace) {
        inner = out;
      } else {
        inner = scratch.values + shape.samples * lines + number * size;
      }
      given.silu ? sample.template find_inner<true>(y, inner)
                 : sample.template find_inner<false>(y, inner);
      const int64_t row = number * shape.channels;
      for (int64_t c = 0; c < shape.channels; ++c) {
        sums.values[row + c] = sample.first[c];
        sums.values[rows + row + c] = sample.second[c];
        if (gradients.shift) gradients.shift[row + c] = sample.first[c];
        if (gradients.scale) {
          gradients.scale[row + c] =
              given.weight[c] * sample.second[c] + given.bias[c] * sample.first[c];
        }
      }
      sample.write_gradient(inner, out);
      if (gradients.offset) {
        for (int64_t c = 0; c < shape.channels; ++c) gradients.offset[row + c] = sample.third[c];
      }
    });
    return kOk;
  };
  const Status done = typed(dtype, run);
  if (done.code == Code::ok && (gradients.weight || gradients.bias)) {
    add_samples(given, gradients, shape, sums.values, sums.values + rows);
  }
  return done;
}

}  // namespace

const GroupNormKernels group_norm_kernels = {forward, backward};

}  // namespace sidfast::SIDFAST_ISA
