#include "score_losses/score_losses.h"

#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "base/parallel.h"
#include "base/sums.h"

namespace sidfast::SIDFAST_ISA {
namespace {

constexpr int64_t kSerial = 32768;         // fewer elements a thread do not repay waking it
constexpr int64_t kStreamBytes = 4 << 20;  // smaller gradients are left in the caches
constexpr int64_t kAheadBytes = 64 << 10;  // longer rows do not fit the second-level cache twice

struct Sums {
  double error = 0.0, score = 0.0;

  void add(const Sums& other) {
    error += other.error;
    score += other.score;
  }
};

// group(i) for each whole group of kSumLanes elements, then tail(i, part, n) for what is left,
// n <= kLanes elements at a time. `part` is a constant wherever it is used, so that sums indexed by
// it can live in registers.
template <class Group, class Tail>
SIDFAST_INLINE void over_run(int64_t count, const Group& group, const Tail& tail) {
  int64_t i = 0;
  for (; i + kSumLanes <= count; i += kSumLanes) group(i);
#pragma GCC unroll 8
  for (int part = 0; part < kParts; ++part) {
    const int64_t j = i + part * kLanes;
    if (j < count) tail(j, part, min64(kLanes, count - j));
  }
}

// value(part) for a whole group, stored at p; past the caches where `streaming` (float32 only).
// Written in one go, since a cache line that leaves the core half full costs two transfers.
template <bool streaming, class T, class Value>
SIDFAST_INLINE void put(T* p, const Value& value) {
#pragma GCC unroll 8
  for (int part = 0; part < kParts; ++part) {
    if constexpr (streaming && std::is_same_v<T, float>) {
      stream(p + part * kLanes, value(part));
    } else {
      store(p + part * kLanes, value(part));
    }
  }
}

template <class T>
bool worth_streaming(const T* gradient, const RowShape& shape) {
  return shape.samples * shape.size * static_cast<int64_t>(sizeof(T)) >= kStreamBytes &&
         shape.size % 16 == 0 && reinterpret_cast<uintptr_t>(gradient) % 64 == 0;
}

template <class T>
void clear(T* gradient, int64_t at, int64_t count) {
  if (gradient) std::memset(gradient + at, 0, static_cast<size_t>(count) * sizeof(T));
}

template <class T>
struct Sid {
  const SidArguments& given;
  const T *x, *teacher, *fake;
  T *x_gradient, *teacher_gradient, *fake_gradient;

  Sums sums(int64_t at, int64_t count) const {
    BlockSum error, score;
    const F minus_alpha(static_cast<float>(-given.alpha));
    const T *xs = x + at, *ts = teacher + at, *fs = fake + at;
    const auto add = [&](F x_value, F t, F f, int part) {
      const F e = t - x_value, d = t - f;
      error.part[part] = error.part[part] + absolute(e);
      score.part[part] = fma(d, fma(minus_alpha, d, e), score.part[part]);
    };
    over_run(
        count,
        [&](int64_t i) {
#pragma GCC unroll 8
          for (int part = 0; part < kParts; ++part) {
            const int64_t j = i + part * kLanes;
            add(load(xs + j), load(ts + j), load(fs + j), part);
          }
        },
        [&](int64_t i, int part, int64_t n) {
          add(load_first(xs + i, n), load_first(ts + i, n), load_first(fs + i, n), part);
        });
    return {error.total(), score.total()};
  }

  // 1 / w, and the loss through it.
  double weigh(int64_t, const Sums& s, int64_t size, double* loss) const {
    const double mean = s.error / static_cast<double>(max64(size, 1));
    const double weight = mean < given.floor ? given.floor : mean;
    *loss = s.score / weight;
    return 1.0 / weight;
  }

  bool wants_gradients() const { return x_gradient || teacher_gradient || fake_gradient; }

  bool streams(const RowShape& shape) const {
    return worth_streaming(x_gradient, shape) && worth_streaming(teacher_gradient, shape) &&
           worth_streaming(fake_gradient, shape);
  }

  template <bool streaming>
  void gradients(int64_t at, int64_t count, int64_t ahead, float factor) const {
    const F r(factor), minus_r(-factor);
    const F teacher_mix(static_cast<float>(1.0 - 2.0 * given.alpha));
    const F fake_mix(static_cast<float>(2.0 * given.alpha));
    // Locals, because vector stores might alias the members.
    const T *xs = x + at, *ts = teacher + at, *fs = fake + at;
    T* const gx = x_gradient ? x_gradient + at : nullptr;
    T* const gt = teacher_gradient ? teacher_gradient + at : nullptr;
    T* const gf = fake_gradient ? fake_gradient + at : nullptr;
    over_run(
        count,
        [&](int64_t i) {
          if (streaming && ahead) {
            prefetch_group(xs + i + ahead);
            prefetch_group(ts + i + ahead);
            prefetch_group(fs + i + ahead);
          }
          F e[kParts], d[kParts];
#pragma GCC unroll 8
          for (int part = 0; part < kParts; ++part) {
            const int64_t j = i + part * kLanes;
            const F t = load(ts + j);
            e[part] = t - load(xs + j);
            d[part] = t - load(fs + j);
          }
          if (gx) put<streaming>(gx + i, [&](int p) { return d[p] * minus_r; });
          if (gt) put<streaming>(gt + i, [&](int p) { return fma(teacher_mix, d[p], e[p]) * r; });
          if (gf) put<streaming>(gf + i, [&](int p) { return fms(fake_mix, d[p], e[p]) * r; });
        },
        [&](int64_t i, int, int64_t n) {
          const F t = load_first(ts + i, n);
          const F e = t - load_first(xs + i, n), d = t - load_first(fs + i, n);
          if (gx) store_first(gx + i, d * minus_r, n);
          if (gt) store_first(gt + i, fma(teacher_mix, d, e) * r, n);
          if (gf) store_first(gf + i, fms(fake_mix, d, e) * r, n);
        });
  }

  void clear_gradients(int64_t at, int64_t count) const {
    clear(x_gradient, at, count);
    clear(teacher_gradient, at, count);
    clear(fake_gradient, at, count);
  }
};

template <class T>
struct Dsm {
  const DsmArguments& given;
  const T *x, *denoised;
  T* gradient;

  Sums sums(int64_t at, int64_t count) const {
    BlockSum score;
    const T *xs = x + at, *fs = denoised + at;
    const auto add = [&](F x_value, F f, int part) {
      const F residual = f - x_value;
      score.part[part] = fma(residual, residual, score.part[part]);
    };
    over_run(
        count,
        [&](int64_t i) {
#pragma GCC unroll 8
          for (int part = 0; part < kParts; ++part) {
            const int64_t j = i + part * kLanes;
            add(load(xs + j), load(fs + j), part);
          }
        },
        [&](int64_t i, int part, int64_t n) {
          add(load_first(xs + i, n), load_first(fs + i, n), part);
        });
    return {0.0, score.total()};
  }

  // Twice EDM's weight, and the loss through it.
  double weigh(int64_t sample, const Sums& s, int64_t, double* loss) const {
    const double sigma = given.sigma[sample], data = given.sigma_data;
    const double weight = (sigma * sigma + data * data) / (sigma * data * sigma * data);
    *loss = weight * s.score;
    return 2.0 * weight;
  }

  bool wants_gradients() const { return gradient; }
  bool streams(const RowShape& shape) const { return worth_streaming(gradient, shape); }

  template <bool streaming>
  void gradients(int64_t at, int64_t count, int64_t ahead, float factor) const {
    const F r(factor);
    const T *xs = x + at, *fs = denoised + at;
    T* const g = gradient + at;
    over_run(
        count,
        [&](int64_t i) {
          if (streaming && ahead) {
            prefetch_group(xs + i + ahead);
            prefetch_group(fs + i + ahead);
          }
          put<streaming>(g + i, [&](int part) {
            const int64_t j = i + part * kLanes;
            return (load(fs + j) - load(xs + j)) * r;
          });
        },
        [&](int64_t i, int, int64_t n) {
          store_first(g + i, (load_first(fs + i, n) - load_first(xs + i, n)) * r, n);
        });
  }

  void clear_gradients(int64_t at, int64_t count) const { clear(gradient, at, count); }
};

// Writes loss and bad; returns whether the sample is good and its gradients' factor.
template <class Loss>
bool conclude(const Loss& loss, int64_t sample, const Sums& sums, int64_t size, float* factor) {
  double value;
  const double weight = loss.weigh(sample, sums, size, &value);
  const float rounded = static_cast<float>(value);
  // A sum never recovers from a NaN or an Inf among its terms, whatever their signs.
  const bool good = __builtin_isfinite(sums.error) && __builtin_isfinite(weight) &&
                    __builtin_isfinite(rounded);
  loss.given.loss[sample] = good ? rounded : 0.0f;
  loss.given.bad[sample] = !good;
  *factor = static_cast<float>(weight * loss.given.gradient_scale);
  return good;
}

// Meanwhile fetches what lies `ahead` elements further, if not 0.
template <bool streaming, class Loss>
void write_gradients(const Loss& loss, int64_t at, int64_t count, int64_t ahead, float factor,
                     bool good) {
  if (good) {
    loss.template gradients<streaming>(at, count, ahead, factor);
  } else {
    loss.clear_gradients(at, count);
  }
}

// A sample's rows stay in the second-level cache between its sums and its gradients. The next
// sample is fetched while this one's gradients are written, to keep both directions busy.
template <bool streaming, class Loss>
void by_samples(const Loss& loss, const RowShape& shape, int threads) {
  const bool fits = shape.size * static_cast<int64_t>(sizeof(float)) <= kAheadBytes;
  parallel_units(shape.samples, threads, [&](int64_t sample) {
    const int64_t at = sample * shape.size;
    Sums total;
    for (int64_t start = 0; start < shape.size; start += kBlock) {
      total.add(loss.sums(at + start, min64(kBlock, shape.size - start)));
    }
    float factor;
    const bool good = conclude(loss, sample, total, shape.size, &factor);
    if (loss.wants_gradients()) {
      const int64_t ahead = fits && sample + 1 < shape.samples ? shape.size : 0;
      write_gradients<streaming>(loss, at, shape.size, ahead, factor, good);
      if (streaming) stream_fence();
    }
  });
}

// Fewer samples than would keep the threads equally busy: blocks are the units instead.
template <bool streaming, class Loss>
Status by_blocks(const Loss& loss, const RowShape& shape, int threads) {
  const int64_t blocks = ceil_div(shape.size, kBlock);
  struct Part {
    Sums sums;
    float factor;  // of its sample: in the sample's first part only
    bool good;
  };
  auto* parts = static_cast<Part*>(
      std::malloc(static_cast<size_t>(shape.samples * blocks) * sizeof(Part)));
  if (!parts) return {Code::bad_argument, "out of memory for partial sums"};
  const auto length = [&](int64_t unit) {
    return min64(kBlock, shape.size - unit % blocks * kBlock);
  };
  const auto begin = [&](int64_t unit) {
    return unit / blocks * shape.size + unit % blocks * kBlock;
  };
  parallel_units(shape.samples * blocks, threads,
                 [&](int64_t unit) { parts[unit].sums = loss.sums(begin(unit), length(unit)); });
  for (int64_t sample = 0; sample < shape.samples; ++sample) {
    Sums total;
    Part* first = parts + sample * blocks;
    for (int64_t block = 0; block < blocks; ++block) total.add(first[block].sums);
    first->good = conclude(loss, sample, total, shape.size, &first->factor);
  }
  if (loss.wants_gradients()) {
    parallel_units(shape.samples * blocks, threads, [&](int64_t unit) {
      const Part& first = parts[unit / blocks * blocks];
      write_gradients<streaming>(loss, begin(unit), length(unit), 0, first.factor, first.good);
      if (streaming) stream_fence();
    });
  }
  std::free(parts);
  return kOk;
}

template <bool streaming, class Loss>
Status run(const Loss& loss, const RowShape& shape, int threads) {
  const int64_t useful = max64(1, min64(threads, shape.samples * shape.size / kSerial));
  if (shape.size == 0 || shape.samples % useful == 0 || shape.samples >= 8 * useful) {
    by_samples<streaming>(loss, shape, static_cast<int>(useful));
    return kOk;
  }
  return by_blocks<streaming>(loss, shape, static_cast<int>(useful));
}

template <class Loss>
Status run(const Loss& loss, const RowShape& shape, int threads) {
  return loss.streams(shape) ? run<true>(loss, shape, threads) : run<false>(loss, shape, threads);
}

Status sid(const SidArguments& given, Dtype dtype, const RowShape& shape, int threads) {
  return typed(dtype, [&](auto tag) {
    using T = decltype(tag);
    const Sid<T> loss{given,
                      static_cast<const T*>(given.images),
                      static_cast<const T*>(given.teacher),
                      static_cast<const T*>(given.fake),
                      static_cast<T*>(given.images_gradient),
                      static_cast<T*>(given.teacher_gradient),
                      static_cast<T*>(given.fake_gradient)};
    return run(loss, shape, threads);
  });
}

Status dsm(const DsmArguments& given, Dtype dtype, const RowShape& shape, int threads) {
  return typed(dtype, [&](auto tag) {
    using T = decltype(tag);
    const Dsm<T> loss{given, static_cast<const T*>(given.images),
                      static_cast<const T*>(given.denoised),
                      static_cast<T*>(given.denoised_gradient)};
    return run(loss, shape, threads);
  });
}

}  // namespace

const ScoreLossKernels score_loss_kernels = {sid, dsm};

}  // namespace sidfast::SIDFAST_ISA
