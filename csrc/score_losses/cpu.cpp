#include "score_losses/score_losses.h"

#include <cstdlib>

#include "base/parallel.h"
#include "score_losses/dsm.h"
#include "score_losses/sid.h"

namespace sidfast::SIDFAST_ISA {
namespace {

constexpr int64_t kSerial = 32768;         // fewer elements a thread do not repay waking it
constexpr int64_t kAheadBytes = 64 << 10;  // longer rows do not fit the second-level cache twice

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

// What is left to write once a sample's sums are known. Meanwhile fetches what lies `ahead`
// elements further, if not 0.
template <bool streaming, class Loss>
void write_gradients(const Loss& loss, int64_t at, int64_t count, int64_t ahead, float factor,
                     bool good) {
  if (!good) {
    loss.clear_gradients(at, count);
  } else if constexpr (!Loss::kOnePass) {
    loss.template gradients<streaming>(at, count, ahead, factor);
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
      total.add(
          loss.template sums<streaming>(sample, at + start, min64(kBlock, shape.size - start)));
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
  parallel_units(shape.samples * blocks, threads, [&](int64_t unit) {
    parts[unit].sums = loss.template sums<streaming>(unit / blocks, begin(unit), length(unit));
    if (streaming) stream_fence();
  });
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
