// Denoising score matching: sum and gradient over runs of one sample's elements.
#pragma once

#include "score_losses/rows.h"

namespace sidfast::SIDFAST_ISA {

template <class T>
struct Dsm {
  const DsmArguments& given;
  const T *x, *denoised;
  T* gradient;

  // The weight is known beforehand: sums() writes the gradient too.
  static constexpr bool kOnePass = true;

  double weight(int64_t sample) const {
    const double sigma = given.sigma[sample], data = given.sigma_data;
    return (sigma * sigma + data * data) / (sigma * data * sigma * data);
  }

  template <bool streaming>
  Sums sums(int64_t sample, int64_t at, int64_t count) const {
    BlockSum score;
    const T *xs = x + at, *fs = denoised + at;
    T* const g = gradient ? gradient + at : nullptr;
    const F factor(static_cast<float>(2.0 * weight(sample) * given.gradient_scale));
    over_run(
        count,
        [&](int64_t i) {
          F residual[kParts];
#pragma GCC unroll 8
          for (int part = 0; part < kParts; ++part) {
            const int64_t j = i + part * kLanes;
            residual[part] = load(fs + j) - load(xs + j);
            score.part[part] = fma(residual[part], residual[part], score.part[part]);
          }
          if (g) put<streaming>(g + i, [&](int part) { return residual[part] * factor; });
        },
        [&](int64_t i, int part, int64_t n) {
          const F residual = load_first(fs + i, n) - load_first(xs + i, n);
          score.part[part] = fma(residual, residual, score.part[part]);
          if (g) store_first(g + i, residual * factor, n);
        });
    return {0.0, score.total()};
  }

  double weigh(int64_t sample, const Sums& s, int64_t, double* loss) const {
    *loss = weight(sample) * s.score;
    return weight(sample);
  }

  bool wants_gradients() const { return gradient; }
  bool streams(const RowShape& shape) const { return worth_streaming(gradient, shape); }
  void clear_gradients(int64_t at, int64_t count) const { clear(gradient, at, count); }
};

}  // namespace sidfast::SIDFAST_ISA
