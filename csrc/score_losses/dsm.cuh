// Denoising score matching: sum and gradient over one access of one thread.
#pragma once

#include "score_losses/sources.cuh"

namespace sidfast::cuda {

template <class Source>
struct Dsm {
  using Network = typename Source::Network;
  using Sample = typename Source::Sample;
  static constexpr int kRun = Source::kRun;
  static constexpr bool kOnePass = true;  // the weight is known beforehand

  struct Held {
    float residual[kRun];
  };

  Source source;
  const Network* denoised;
  const float* sigma;
  Network* gradient;
  double sigma_data;
  Results results;

  Dsm(const Source& from, const DsmArguments& given)
      : source(from),
        denoised(static_cast<const Network*>(given.denoised)),
        sigma(given.sigma),
        gradient(static_cast<Network*>(given.denoised_gradient)),
        sigma_data(given.sigma_data),
        results{given.loss, given.weight, given.gradient_scale} {}

  bool wants_gradients() const { return gradient; }

  bool aligned(int64_t size) const {
    return source.aligned(size) && rows_aligned(denoised, size) && rows_aligned(gradient, size);
  }

  SIDFAST_INLINE Sample enter(int64_t sample) const { return source.enter(sample); }

  template <class Run>
  SIDFAST_INLINE void read(const Run& run, const Sample& own, Held* held) const {
    float output[kRun];
    run.template read<kRun>(denoised, output);
    source.error(run, own, output, held->residual);
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

  SIDFAST_INLINE Factors factors(int64_t sample, double weight, bool good) const {
    return source.factors(sample, 2.0 * weight * results.gradient_scale, good);
  }

  template <class Run>
  SIDFAST_INLINE void write(const Run& run, const Held& held, const Factors& factors) const {
    if (!gradient) return;
    float values[kRun];
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      values[i] = factors.good ? held.residual[i] * factors.networks : 0.0f;
    }
    run.template write<kRun>(gradient, values);
  }
};

}  // namespace sidfast::cuda
