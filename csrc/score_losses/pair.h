// Losses of a pair of networks: sums over e = T - x and d = T - F, then gradients that a weight made
// of those sums multiplies.
#pragma once

#include "score_losses/sources.h"

namespace sidfast::SIDFAST_ISA {

// The SiD loss: sum d (e - alpha d) / w.
struct SidRule {
  using Arguments = SidArguments;
  static constexpr bool kOfImagesAlone = false;
  const SidArguments& given;

  struct Term {
    F minus_alpha;
    SIDFAST_INLINE F operator()(F e, F d, F sum) const {
      return fma(d, fma(minus_alpha, d, e), sum);
    }
  };
  Term term() const { return {F(static_cast<float>(-given.alpha))}; }

  Outcome conclude(int64_t, double mean, double score) const {
    const double weight = mean < given.floor ? given.floor : mean;
    return {score / weight, 1.0 / weight};
  }
};

// Variational score distillation: sum (weight d)^2 / 2, whose gradient to the images is -weight d.
struct VsdRule {
  using Arguments = VsdArguments;
  static constexpr bool kOfImagesAlone = true;
  const VsdArguments& given;

  struct Term {
    SIDFAST_INLINE F operator()(F, F d, F sum) const { return fma(d, d, sum); }
  };
  Term term() const { return {}; }

  Outcome conclude(int64_t sample, double mean, double score) const {
    const double bounded = mean < given.floor ? given.floor : mean;
    const double scale = given.scale ? given.scale[sample] : 1.0;
    const double weight = scale / (bounded + given.eps);
    return {0.5 * weight * weight * score, weight};
  }
};

template <class Rule, class Source_>
struct Pair {
  using Source = Source_;
  using T = typename Source::Images;
  using R = typename Source::Outputs;
  using Run = typename Source::Run;

  // The weight comes from a sum over the whole sample: the gradients need a second look at it.
  static constexpr bool kOnePass = false;

  const typename Rule::Arguments& given;
  Source source;
  double teacher_mix, fake_mix;  // of d, in the gradients with respect to T and F
  Target<T> images;
  Target<R> teacher, fake;
  Target<T> noisy;

  Sums sums(const Run& all, int64_t, int64_t, int64_t count) const {
    const Run run = all;
    BlockSum error, score;
    const auto term = Rule{given}.term();
    const auto add = [&](F e, F d, int part) {
      error.part[part] = error.part[part] + absolute(e);
      score.part[part] = term(e, d, score.part[part]);
    };
    over_run(
        count,
        [&](int64_t i) {
#pragma GCC unroll 8
          for (int part = 0; part < kParts; ++part) {
            const int64_t j = i + part * kLanes;
            add(run.error(Whole{}, j), run.difference(Whole{}, j), part);
          }
        },
        [&](int64_t i, int part, int64_t n) {
          add(run.error(First{n}, i), run.difference(First{n}, i), part);
        });
    return {error.total(), score.total()};
  }

  Outcome conclude(int64_t sample, const Sums& s, int64_t size) const {
    return Rule{given}.conclude(sample, s.error / static_cast<double>(max64(size, 1)), s.score);
  }

  bool wants_gradients() const { return images || teacher || fake || noisy; }
  bool streams() const { return images.streams || teacher.streams || fake.streams; }

  // Meanwhile fetches what lies `ahead` elements further, if not 0.
  void gradients(const Run& all, int64_t sample, int64_t at, int64_t count, int64_t ahead,
                 double factor) const {
    const Factors factors = source.factors(sample, factor);
    const F of_images(factors.images), of_outputs(factors.outputs), of_noisy(factors.noisy);
    const F to_teacher(static_cast<float>(teacher_mix)), to_fake(static_cast<float>(fake_mix));
    // Locals, because vector stores might alias the members.
    const Run run = all;
    const Target<T> gx = images.from(at), gn = noisy.from(at);
    const Target<R> gt = teacher.from(at), gf = fake.from(at);
    over_run(
        count,
        [&](int64_t i) {
          if (ahead) run.prefetch(i + ahead);
          F e[kParts], d[kParts];
#pragma GCC unroll 8
          for (int part = 0; part < kParts; ++part) {
            const int64_t j = i + part * kLanes;
            if constexpr (!Rule::kOfImagesAlone) e[part] = run.error(Whole{}, j);
            d[part] = run.difference(Whole{}, j);
          }
          if (gx) gx.put(i, [&](int p) { return d[p] * of_images; });
          if constexpr (Rule::kOfImagesAlone) return;
          if (gt) gt.put(i, [&](int p) { return fma(to_teacher, d[p], e[p]) * of_outputs; });
          if (gf) gf.put(i, [&](int p) { return fms(to_fake, d[p], e[p]) * of_outputs; });
          if (gn) gn.put(i, [&](int p) { return d[p] * of_noisy; });
        },
        [&](int64_t i, int, int64_t n) {
          const F d = run.difference(First{n}, i);
          if (gx) gx.put_first(i, d * of_images, n);
          if constexpr (Rule::kOfImagesAlone) return;
          const F e = run.error(First{n}, i);
          if (gt) gt.put_first(i, fma(to_teacher, d, e) * of_outputs, n);
          if (gf) gf.put_first(i, fms(to_fake, d, e) * of_outputs, n);
          if (gn) gn.put_first(i, d * of_noisy, n);
        });
  }

  void clear_gradients(int64_t at, int64_t count) const {
    images.clear(at, count);
    teacher.clear(at, count);
    fake.clear(at, count);
    noisy.clear(at, count);
  }
};

}  // namespace sidfast::SIDFAST_ISA
