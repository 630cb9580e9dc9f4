// Denoising score matching: sum and gradient over runs of one sample's elements.
#pragma once

#include "score_losses/sources.h"

namespace sidfast::SIDFAST_ISA {

template <class Source_>
struct Dsm {
  using Source = Source_;
  using R = typename Source::Outputs;
  using Run = typename Source::Run;

  // The weight is known beforehand: sums() writes the gradient too.
  static constexpr bool kOnePass = true;

  const DsmArguments& given;
  Source source;
  Target<R> denoised;

  double weight(int64_t sample) const {
    const double sigma = given.sigma[sample], data = given.sigma_data;
    return (sigma * sigma + data * data) / (sigma * data * sigma * data);
  }

  Sums sums(const Run& all, int64_t sample, int64_t at, int64_t count) const {
    BlockSum score;
    const Run run = all;
    const Target<R> g = denoised.from(at);
    const double twice = 2.0 * weight(sample) * given.gradient_scale;
    const F factor(source.factors(sample, twice).outputs);
    over_run(
        count,
        [&](int64_t i) {
          F residual[kParts];
#pragma GCC unroll 8
          for (int part = 0; part < kParts; ++part) {
            residual[part] = run.error(Whole{}, i + part * kLanes);
            score.part[part] = fma(residual[part], residual[part], score.part[part]);
          }
          if (g) g.put(i, [&](int part) { return residual[part] * factor; });
        },
        [&](int64_t i, int part, int64_t n) {
          const F residual = run.error(First{n}, i);
          score.part[part] = fma(residual, residual, score.part[part]);
          if (g) g.put_first(i, residual * factor, n);
        });
    return {0.0, score.total()};
  }

  Outcome conclude(int64_t sample, const Sums& s, int64_t) const {
    return {weight(sample) * s.score, weight(sample)};
  }

  bool wants_gradients() const { return bool(denoised); }
  bool streams() const { return denoised.streams; }
  void clear_gradients(int64_t at, int64_t count) const { denoised.clear(at, count); }
};

}  // namespace sidfast::SIDFAST_ISA
