// Losses of a teacher and a fake score: sums and gradients over one access of one thread. With
// e = teacher - images and d = teacher - fake.
#pragma once

#include <type_traits>

#include "score_losses/sources.cuh"

namespace sidfast::cuda {

// sum d (e - alpha d) / w with w = max(mean|e|, floor).
struct Sid {
  float minus_alpha, teacher_mix, fake_mix;
  double floor;

  explicit Sid(const SidArguments& given)
      : minus_alpha(static_cast<float>(-given.alpha)),
        teacher_mix(static_cast<float>(1.0 - 2.0 * given.alpha)),
        fake_mix(static_cast<float>(2.0 * given.alpha)),
        floor(given.floor) {}

  SIDFAST_INLINE float add(float e, float d, float score) const {
    return fmaf(d, fmaf(minus_alpha, d, e), score);
  }

  SIDFAST_INLINE Outcome weigh(int64_t, double mean, double score) const {
    const double w = mean < floor ? floor : mean;
    return {score / w, 1.0 / w};
  }

  SIDFAST_INLINE float to_teacher(float e, float d) const { return fmaf(teacher_mix, d, e); }
  SIDFAST_INLINE float to_fake(float e, float d) const { return fmaf(fake_mix, d, -e); }
};

// sum (w d)^2 / 2 with w = scale / (max(mean|e|, floor) + eps), held; gradient to the images alone.
struct Vsd {
  const float* scale;
  double floor, eps;

  explicit Vsd(const VsdArguments& given)
      : scale(given.scale), floor(given.floor), eps(given.eps) {}

  SIDFAST_INLINE float add(float, float d, float score) const { return fmaf(d, d, score); }

  SIDFAST_INLINE Outcome weigh(int64_t sample, double mean, double score) const {
    const double own = scale ? scale[sample] : 1.0f;
    const double w = own / ((mean < floor ? floor : mean) + eps);
    return {0.5 * score * w * w, w};
  }
};

template <class Source, class Kind>
struct Pair {
  using Image = typename Source::Image;
  using Network = typename Source::Network;
  using Sample = typename Source::Sample;
  static constexpr int kRun = Source::kRun;
  static constexpr bool kOnePass = false;  // the gradients need a sum over the whole sample
  static constexpr bool kToNetworks = std::is_same_v<Kind, Sid>;

  struct Held {
    float e[kRun], d[kRun];
  };

  Source source;
  Kind kind;
  const Network *teacher, *fake;
  Image* images_gradient;
  Network *teacher_gradient, *fake_gradient;
  Image* noisy_gradient;
  Results results;

  Pair(const Source& from, const SidArguments& given)
      : source(from),
        kind(given),
        teacher(static_cast<const Network*>(given.teacher)),
        fake(static_cast<const Network*>(given.fake)),
        images_gradient(static_cast<Image*>(given.images_gradient)),
        teacher_gradient(static_cast<Network*>(given.teacher_gradient)),
        fake_gradient(static_cast<Network*>(given.fake_gradient)),
        noisy_gradient(static_cast<Image*>(given.noisy_gradient)),
        results{given.loss, given.weight, given.gradient_scale} {}

  Pair(const Source& from, const VsdArguments& given)
      : source(from),
        kind(given),
        teacher(static_cast<const Network*>(given.teacher)),
        fake(static_cast<const Network*>(given.fake)),
        images_gradient(static_cast<Image*>(given.images_gradient)),
        teacher_gradient(nullptr),
        fake_gradient(nullptr),
        noisy_gradient(nullptr),
        results{given.loss, given.weight, given.gradient_scale} {}

  bool wants_gradients() const {
    return images_gradient || teacher_gradient || fake_gradient || noisy_gradient;
  }

  bool aligned(int64_t size) const {
    return source.aligned(size) && rows_aligned(teacher, size) && rows_aligned(fake, size) &&
           rows_aligned(images_gradient, size) && rows_aligned(teacher_gradient, size) &&
           rows_aligned(fake_gradient, size) && rows_aligned(noisy_gradient, size);
  }

  SIDFAST_INLINE Sample enter(int64_t sample) const { return source.enter(sample); }

  template <class Run>
  SIDFAST_INLINE void read(const Run& run, const Sample& own, Held* held) const {
    float ts[kRun], fs[kRun];
    run.template read<kRun>(teacher, ts);
    run.template read<kRun>(fake, fs);
    // c_skip x_t is in both outputs: left out, it cannot round.
#pragma unroll
    for (int i = 0; i < kRun; ++i) held->d[i] = (ts[i] - fs[i]) * source.difference(own);
    source.error(run, own, ts, held->e);
  }

  SIDFAST_INLINE void add(const Held& held, Sums<float>* sums) const {
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      sums->error += fabsf(held.e[i]);
      sums->score = kind.add(held.e[i], held.d[i], sums->score);
    }
  }

  SIDFAST_INLINE Outcome weigh(int64_t sample, const Sums<double>& sums, int64_t size) const {
    return kind.weigh(sample, sums.error / static_cast<double>(size > 0 ? size : 1), sums.score);
  }

  SIDFAST_INLINE Factors factors(int64_t sample, double weight, bool good) const {
    return source.factors(sample, weight * results.gradient_scale, good);
  }

  template <class Run>
  SIDFAST_INLINE void write(const Run& run, const Held& held, const Factors& factors) const {
    const float to_images = Source::kRaw ? factors.images : -factors.networks;
    put(images_gradient, run, factors, [&](int i) { return held.d[i] * to_images; });
    if constexpr (kToNetworks) {
      const float r = factors.networks;
      put(teacher_gradient, run, factors,
          [&](int i) { return kind.to_teacher(held.e[i], held.d[i]) * r; });
      put(fake_gradient, run, factors,
          [&](int i) { return kind.to_fake(held.e[i], held.d[i]) * r; });
    }
    if constexpr (Source::kRaw) {
      put(noisy_gradient, run, factors, [&](int i) { return held.d[i] * factors.noisy; });
    }
  }

  template <class T, class Run, class Value>
  SIDFAST_INLINE void put(T* gradient, const Run& run, const Factors& factors,
                          const Value& value) const {
    if (!gradient) return;
    float values[kRun];
#pragma unroll
    for (int i = 0; i < kRun; ++i) values[i] = factors.good ? value(i) : 0.0f;
    run.template write<kRun>(gradient, values);
  }
};

}  // namespace sidfast::cuda
