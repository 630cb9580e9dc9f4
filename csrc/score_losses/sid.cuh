// The SiD loss, its sums and gradients over one access of one thread.
#pragma once

#include "score_losses/rows.cuh"

namespace sidfast::cuda {

template <class T>
struct Sid {
  using Storage = T;
  static constexpr int kRun = kAccess<T>;
  static constexpr bool kOnePass = false;  // the gradients need a sum over the whole sample

  struct Held {
    float e[kRun], d[kRun];
  };

  const T *x, *teacher, *fake;
  T *x_gradient, *teacher_gradient, *fake_gradient;
  float* loss;
  bool* bad;
  float minus_alpha, teacher_mix, fake_mix;
  double floor, gradient_scale;

  explicit Sid(const SidArguments& given)
      : x(static_cast<const T*>(given.images)),
        teacher(static_cast<const T*>(given.teacher)),
        fake(static_cast<const T*>(given.fake)),
        x_gradient(static_cast<T*>(given.images_gradient)),
        teacher_gradient(static_cast<T*>(given.teacher_gradient)),
        fake_gradient(static_cast<T*>(given.fake_gradient)),
        loss(given.loss),
        bad(given.bad),
        minus_alpha(static_cast<float>(-given.alpha)),
        teacher_mix(static_cast<float>(1.0 - 2.0 * given.alpha)),
        fake_mix(static_cast<float>(2.0 * given.alpha)),
        floor(given.floor),
        gradient_scale(given.gradient_scale) {}

  bool wants_gradients() const { return x_gradient || teacher_gradient || fake_gradient; }

  bool aligned(int64_t size) const {
    bool all = true;
    for (const T* p : {x, teacher, fake, static_cast<const T*>(x_gradient),
                       static_cast<const T*>(teacher_gradient),
                       static_cast<const T*>(fake_gradient)}) {
      all = all && rows_aligned(p, size);
    }
    return all;
  }

  template <class Run>
  SIDFAST_INLINE void read(const Run& run, Held* held) const {
    float xs[kRun], ts[kRun], fs[kRun];
    run.template read<kRun>(x, xs);
    run.template read<kRun>(teacher, ts);
    run.template read<kRun>(fake, fs);
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      held->e[i] = ts[i] - xs[i];
      held->d[i] = ts[i] - fs[i];
    }
  }

  SIDFAST_INLINE void add(const Held& held, Sums<float>* sums) const {
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      sums->error += fabsf(held.e[i]);
      sums->score = fmaf(held.d[i], fmaf(minus_alpha, held.d[i], held.e[i]), sums->score);
    }
  }

  SIDFAST_INLINE Outcome weigh(int64_t, const Sums<double>& sums, int64_t size) const {
    const double mean = sums.error / static_cast<double>(size > 0 ? size : 1);
    const double weight = mean < floor ? floor : mean;
    return {sums.score / weight, 1.0 / weight};
  }

  template <class Run>
  SIDFAST_INLINE void write(const Run& run, const Held& held, const Factor& factor) const {
    const float r = factor.value;
    put(x_gradient, run, factor.good, [&](int i) { return held.d[i] * -r; });
    put(teacher_gradient, run, factor.good,
        [&](int i) { return fmaf(teacher_mix, held.d[i], held.e[i]) * r; });
    put(fake_gradient, run, factor.good,
        [&](int i) { return fmaf(fake_mix, held.d[i], -held.e[i]) * r; });
  }

  template <class Run, class Value>
  SIDFAST_INLINE void put(T* gradient, const Run& run, bool good, const Value& value) const {
    if (!gradient) return;
    float values[kRun];
#pragma unroll
    for (int i = 0; i < kRun; ++i) values[i] = good ? value(i) : 0.0f;
    run.template write<kRun>(gradient, values);
  }
};

}  // namespace sidfast::cuda
