#include "score_losses/score_losses.h"

#include <cstdlib>

#include "base/parallel.h"
#include "score_losses/dsm.h"
#include "score_losses/pair.h"

namespace sidfast::SIDFAST_ISA {
namespace {

constexpr int64_t kSerial = 32768;         // fewer elements a thread do not repay waking it
constexpr int64_t kAheadBytes = 64 << 10;  // longer rows do not fit the second-level cache twice

// Writes loss and weight; returns whether the sample is good and its gradients' factor.
template <class Loss>
bool conclude(const Loss& loss, int64_t sample, const Sums& sums, int64_t size, double* factor) {
  const Outcome outcome = loss.conclude(sample, sums, size);
  const float value = static_cast<float>(outcome.loss), weight = static_cast<float>(outcome.weight);
  // A sum never recovers from a NaN or an Inf among its terms, whatever their signs.
  const bool good = __builtin_isfinite(sums.error) && __builtin_isfinite(weight) &&
                    __builtin_isfinite(value);
  loss.given.loss[sample] = good ? value : 0.0f;
  loss.given.weight[sample] = good ? weight : __builtin_nanf("");
  *factor = outcome.weight * loss.given.gradient_scale;
  return good;
}

// A sample's rows stay in the second-level cache between its sums and its gradients. The next
// sample is fetched while this one's gradients are written, to keep both directions busy.
template <class Loss>
void by_samples(const Loss& loss, const RowShape& shape, int threads) {
  const bool streams = loss.streams();
  const bool fits = shape.size * static_cast<int64_t>(sizeof(float)) <= kAheadBytes;
  parallel_units(shape.samples, threads, [&](int64_t sample) {
    typename Loss::Source::Scratch scratch;
    const int64_t at = sample * shape.size;
    Sums total;
    for (int64_t start = 0; start < shape.size; start += kBlock) {
      const int64_t count = min64(kBlock, shape.size - start);
      total.add(loss.sums(loss.source.run(sample, start, count, &scratch), sample, at + start,
                          count));
    }
    double factor;
    const bool good = conclude(loss, sample, total, shape.size, &factor);
    if (loss.wants_gradients()) {
      if (!good) {
        loss.clear_gradients(at, shape.size);
      } else if constexpr (!Loss::kOnePass) {
        const int64_t ahead = streams && fits && sample + 1 < shape.samples ? shape.size : 0;
        if (loss.source.holds()) {
          loss.gradients(loss.source.rerun(sample, 0, &scratch), sample, at, shape.size,
                         ahead, factor);
        } else {
          for (int64_t start = 0; start < shape.size; start += kBlock) {
            const int64_t count = min64(kBlock, shape.size - start);
            loss.gradients(loss.source.run(sample, start, count, &scratch), sample, at + start,
                           count, 0, factor);
          }
        }
      }
      if (streams) stream_fence();
    }
  });
}

// Fewer samples than would keep the threads equally busy: blocks are the units instead.
template <class Loss>
Status by_blocks(const Loss& loss, const RowShape& shape, int threads) {
  const int64_t blocks = ceil_div(shape.size, kBlock);
  struct Part {
    Sums sums;
    double factor;  // of its sample: in the sample's first part only
    bool good;
  };
  auto* parts = static_cast<Part*>(
      std::malloc(static_cast<size_t>(shape.samples * blocks) * sizeof(Part)));
  if (!parts) return {Code::bad_argument, "out of memory for partial sums"};
  // body(run, sample, offset of the block in the tensors, its length, its number)
  const auto each_block = [&](const auto& body) {
    parallel_units(shape.samples * blocks, threads, [&](int64_t unit) {
      typename Loss::Source::Scratch scratch;
      const int64_t sample = unit / blocks, start = unit % blocks * kBlock;
      const int64_t count = min64(kBlock, shape.size - start);
      const auto run = loss.source.run(sample, start, count, &scratch);
      body(run, sample, sample * shape.size + start, count, unit);
      if (loss.streams()) stream_fence();
    });
  };
  each_block([&](const auto& run, int64_t sample, int64_t at, int64_t count, int64_t unit) {
    parts[unit].sums = loss.sums(run, sample, at, count);
  });
  bool all_good = true;
  for (int64_t sample = 0; sample < shape.samples; ++sample) {
    Sums total;
    Part* first = parts + sample * blocks;
    for (int64_t block = 0; block < blocks; ++block) total.add(first[block].sums);
    first->good = conclude(loss, sample, total, shape.size, &first->factor);
    all_good = all_good && first->good;
  }
  if (loss.wants_gradients() && !(Loss::kOnePass && all_good)) {
    each_block([&](const auto& run, int64_t sample, int64_t at, int64_t count, int64_t) {
      const Part& first = parts[sample * blocks];
      if (!first.good) {
        loss.clear_gradients(at, count);
      } else if constexpr (!Loss::kOnePass) {
        loss.gradients(run, sample, at, count, 0, first.factor);
      }
    });
  }
  std::free(parts);
  return kOk;
}

template <class Loss>
Status run(const Loss& loss, const RowShape& shape, int threads) {
  const int64_t useful = max64(1, min64(threads, shape.samples * shape.size / kSerial));
  if (shape.size == 0 || shape.samples % useful == 0 || shape.samples >= 8 * useful) {
    by_samples(loss, shape, static_cast<int>(useful));
    return kOk;
  }
  return by_blocks(loss, shape, static_cast<int>(useful));
}

// then(source) with the raw outputs' source that types and arguments call for: images of the
// outputs' type or float32.
template <class Then>
Status with_raw_source(const void* images, const void* teacher, const void* fake,
                       const RawArguments& raw, const NoiseKey& key, Dtype dtype, Dtype raw_dtype,
                       const RowShape& shape, const Then& then) {
  return typed(raw_dtype, [&](auto output) -> Status {
    using R = decltype(output);
    const auto with_images = [&](auto image) {
      using T = decltype(image);
      const auto source = [&](auto keyed) {
        return then(Raw<T, R, decltype(keyed)::value>{
            raw, key, static_cast<const T*>(images), static_cast<const R*>(teacher),
            static_cast<const R*>(fake), shape.size});
      };
      return raw.noisy ? source(std::false_type{}) : source(std::true_type{});
    };
    if (dtype == raw_dtype) return with_images(output);
    if (dtype == Dtype::float32) return with_images(0.0f);
    return {Code::bad_argument, "images must be of the raw outputs' type or float32"};
  });
}

template <class Source>
Status sid_of(const Source& source, const SidArguments& given, const RowShape& shape, int threads) {
  using T = typename Source::Images;
  using R = typename Source::Outputs;
  const Pair<SidRule, Source> loss{given,
                                   source,
                                   1.0 - 2.0 * given.alpha,
                                   2.0 * given.alpha,
                                   Target<T>(given.images_gradient, shape),
                                   Target<R>(given.teacher_gradient, shape),
                                   Target<R>(given.fake_gradient, shape),
                                   Target<T>(given.noisy_gradient, shape)};
  return run(loss, shape, threads);
}

template <class Source>
Status dsm_of(const Source& source, const DsmArguments& given, const RowShape& shape, int threads) {
  using R = typename Source::Outputs;
  const Dsm<Source> loss{given, source, Target<R>(given.denoised_gradient, shape)};
  return run(loss, shape, threads);
}

Status sid(const SidArguments& given, Dtype dtype, const RowShape& shape, int threads) {
  return typed(dtype, [&](auto tag) {
    using T = decltype(tag);
    const Denoised<T> source{static_cast<const T*>(given.images),
                             static_cast<const T*>(given.teacher),
                             static_cast<const T*>(given.fake), shape.size};
    return sid_of(source, given, shape, threads);
  });
}

Status sid_raw(const SidArguments& given, const RawArguments& raw, const NoiseKey& key, Dtype dtype,
               Dtype raw_dtype, const RowShape& shape, int threads) {
  return with_raw_source(
      given.images, given.teacher, given.fake, raw, key, dtype, raw_dtype, shape,
      [&](const auto& source) { return sid_of(source, given, shape, threads); });
}

Status dsm(const DsmArguments& given, Dtype dtype, const RowShape& shape, int threads) {
  return typed(dtype, [&](auto tag) {
    using T = decltype(tag);
    const Denoised<T> source{static_cast<const T*>(given.images),
                             static_cast<const T*>(given.denoised), nullptr, shape.size};
    return dsm_of(source, given, shape, threads);
  });
}

Status dsm_raw(const DsmArguments& given, const RawArguments& raw, const NoiseKey& key, Dtype dtype,
               Dtype raw_dtype, const RowShape& shape, int threads) {
  return with_raw_source(
      given.images, given.denoised, nullptr, raw, key, dtype, raw_dtype, shape,
      [&](const auto& source) { return dsm_of(source, given, shape, threads); });
}

Status vsd(const VsdArguments& given, Dtype dtype, const RowShape& shape, int threads) {
  return typed(dtype, [&](auto tag) {
    using T = decltype(tag);
    const Denoised<T> source{static_cast<const T*>(given.images),
                             static_cast<const T*>(given.teacher),
                             static_cast<const T*>(given.fake), shape.size};
    const Pair<VsdRule, Denoised<T>> loss{
        given, source, 0.0, 0.0, Target<T>(given.images_gradient, shape), {}, {}, {}};
    return run(loss, shape, threads);
  });
}

}  // namespace

const ScoreLossKernels score_loss_kernels = {sid, dsm, vsd, sid_raw, dsm_raw};

}  // namespace sidfast::SIDFAST_ISA
