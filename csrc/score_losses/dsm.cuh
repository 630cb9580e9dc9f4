// Denoising score matching: sum and gradient over one access of one thread.
#pragma once

#include "score_losses/rows.cuh"

namespace sidfast::cuda {

template <class T>
struct Dsm {
  using Storage = T;
  static constexpr int kRun = kAccess<T>;
  static constexpr bool kOnePass = true;  // the weight is known beforehand

  struct Held {
    float residual[kRun];
  };

  const T *x, *denoised;
  const float* sigma;
  T* gradient;
  float* loss;
  bool* bad;
  double sigma_data, gradient_scale;

  explicit Dsm(const DsmArguments& given)
      : x(static_cast<const T*>(given.images)),
        denoised(static_cast<const T*>(given.denoised)),
        sigma(given.sigma),
        gradient(static_cast<T*>(given.denoised_gradient)),
        loss(given.loss),
        bad(given.bad),
        sigma_data(given.sigma_data),
        gradient_scale(2.0 * given.gradient_scale) {}

  bool wants_gradients() const { return gradient; }

  bool aligned(int64_t size) const {
    return rows_aligned(x, size) &&
           rows_aligned(denoised, size) &&
           rows_aligned(gradient, size);
  }

  template <class Run>
  SIDFAST_INLINE void read(const Run& run, Held* held) const {
    float xs[kRun], fs[kRun];
    run.template read<kRun>(x, xs);
    run.template read<kRun>(denoised, fs);
#pragma unroll
    for (int i = 0; i < kRun; ++i) held->residual[i] = fs[i] - xs[i];
  }

  SIDFAST_INLINE void add(const Held& held, Sums<float>* sums) const {
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      sums->score = fmaf(held.residual[i], held.residual[i], sums->score);
    }
  }

  SIDFAST_INLINE double weight(int64_t sample) const {
    const double s = sigma[sample], data = sigma_data;
    return (s * s + data * data) / (s * data * s * data);
  }

  SIDFAST_INLINE Outcome weigh(int64_t sample, const Sums<double>& sums, int64_t) const {
    const double w = weight(sample);
    return {w * sums.score, w};
  }

  template <class Run>
  SIDFAST_INLINE void write(const Run& run, const Held& held, const Factor& factor) const {
    if (!gradient) return;
    float values[kRun];
#pragma unroll
    for (int i = 0; i < kRun; ++i) values[i] = factor.good ? held.residual[i] * factor.value : 0.0f;
    run.template write<kRun>(gradient, values);
  }
};

}  // namespace sidfast::cuda
