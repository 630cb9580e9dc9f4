// The SiD loss, its sums and gradients over runs of one sample's elements.
#pragma once

#include "score_losses/rows.h"

namespace sidfast::SIDFAST_ISA {

template <class T>
struct Sid {
  const SidArguments& given;
  const T *x, *teacher, *fake;
  T *x_gradient, *teacher_gradient, *fake_gradient;

  // The weight comes from a sum over the whole sample: the gradients need a second look at it.
  static constexpr bool kOnePass = false;

  template <bool streaming>
  Sums sums(int64_t, int64_t at, int64_t count) const {
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

}  // namespace sidfast::SIDFAST_ISA
