#include "adam_ema/adam_ema.h"

#include <math.h>

#include "base/parallel.h"
#include "base/simd.h"

namespace sidfast::SIDFAST_ISA {
namespace {

constexpr int64_t kUnit = 8192;      // elements of the concatenated parameters
constexpr int64_t kSerial = 131072;  // fewer elements a thread do not repay waking it

// run(parameter, begin, count) for each piece of a unit of the concatenated parameters.
template <class Run>
void over_pieces(const AdamTable& table, int64_t unit, const Run& run) {
  int64_t at = unit * kUnit;
  const int64_t end = min64(at + kUnit, table.ends[table.count - 1]);
  int64_t i = 0;
  for (int64_t above = table.count - 1; i < above;) {
    const int64_t middle = (i + above) / 2;
    if (table.ends[middle] > at) {
      above = middle;
    } else {
      i = middle + 1;
    }
  }
  for (; at < end; ++i) {
    const int64_t begin = i == 0 ? 0 : table.ends[i - 1];
    const int64_t stop = min64(end, table.ends[i]);
    if (stop > at) run(i, at - begin, stop - at);
    at = stop;
  }
}

SIDFAST_INLINE U not_finite(F a) { return at_least(as_words(absolute(a)), U(0x7f800000u)); }

SIDFAST_INLINE bool any(U mask) {
  uint32_t words[kLanes], all = 0;
  store_words(words, mask);
  for (uint32_t word : words) all |= word;
  return all != 0;
}

bool finite(const float* gradient, int64_t count) {
  constexpr int kRow = 4;  // independent chains
  U bad[kRow] = {U(0u), U(0u), U(0u), U(0u)};
  int64_t i = 0;
  for (; i + kRow * kLanes <= count; i += kRow * kLanes) {
#pragma GCC unroll 4
    for (int k = 0; k < kRow; ++k) bad[k] = bad[k] | not_finite(load(gradient + i + k * kLanes));
  }
  for (; i < count; i += kLanes) {
    bad[0] = bad[0] | not_finite(load_first(gradient + i, min64(kLanes, count - i)));
  }
  return !any((bad[0] | bad[1]) | (bad[2] | bad[3]));
}

bool all_finite(const AdamTable& table, int64_t units, int threads) {
  bool found = false;
  parallel_units(units, threads, [&](int64_t unit) {
    over_pieces(table, unit, [&](int64_t i, int64_t begin, int64_t count) {
      const float* gradient = table.gradients[i];
      if (gradient && !finite(gradient + begin, count)) {
        __atomic_store_n(&found, true, __ATOMIC_RELAXED);
      }
    });
  });
  return !found;
}

void clamp(float* gradient, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = gradient[i];
    if (!__builtin_isfinite(g)) gradient[i] = g > 0.0f ? 1e5f : g < 0.0f ? -1e5f : 0.0f;
  }
}

// What Adam multiplies with after so many steps.
struct Factors {
  float step = -1.0f, rate, scale;

  void at(float steps, const AdamSettings& s) {
    if (steps == step) return;
    step = steps;
    const double n = static_cast<double>(steps) + 1.0;
    rate = static_cast<float>(-s.lr / (1.0 - ::pow(s.beta1, n)));
    scale = static_cast<float>(1.0 / ::sqrt(1.0 - ::pow(s.beta2, n)));
  }
};

template <class Low>
struct Update {
  const AdamTable& table;
  const AdamSettings& s;

  // Parameter i, elements begin to begin + count: the steps were counted to factors.step before.
  void piece(int64_t i, int64_t begin, int64_t count, const Factors& factors) const {
    float* const p = table.parameters[i] + begin;
    const float* const g = table.gradients[i] ? table.gradients[i] + begin : nullptr;
    float* const m = g && table.first_moments ? table.first_moments[i] + begin : nullptr;
    float* const v = g ? table.second_moments[i] + begin : nullptr;
    float* const average = table.averages ? table.averages[i] + begin : nullptr;
    Low* const copy = table.copies ? static_cast<Low*>(table.copies[i]) + begin : nullptr;

    const F fresh1(static_cast<float>(1.0 - s.beta1)), beta2(static_cast<float>(s.beta2));
    const F fresh2(static_cast<float>(1.0 - s.beta2)), eps(static_cast<float>(s.eps));
    const F rate(factors.rate), scale(factors.scale);
    const F added(static_cast<float>(s.decoupled ? 0.0 : s.weight_decay));
    const F kept(static_cast<float>(s.decoupled ? 1.0 - s.lr * s.weight_decay : 1.0));
    const bool adds = !s.decoupled && s.weight_decay != 0.0;
    // The nearer end carries the sum, so that 0 copies and 1 keeps to the bit.
    const bool mostly_new = s.average_beta < 0.5;
    const F share(static_cast<float>(mostly_new ? s.average_beta : 1.0 - s.average_beta));

    const auto step = [&](int64_t j, const auto& get, const auto& put) {
      F value = get(p + j);
      if (g) {
        F gradient = get(g + j);
        if (adds) gradient = fma(added, value, gradient);
        F direction = gradient;
        if (m) {
          const F old = get(m + j);
          direction = fma(fresh1, gradient - old, old);
          put(m + j, direction);
        }
        const F square = fma(fresh2 * gradient, gradient, beta2 * get(v + j));
        put(v + j, square);
        const F ratio = direction / fma(square_root(square), scale, eps);
        value = fma(rate, ratio, value * kept);
        put(p + j, value);
      }
      if (average) {
        const F old = get(average + j);
        put(average + j,
            mostly_new ? fma(share, old - value, value) : fma(share, value - old, old));
      }
      if (copy) put(copy + j, value);
    };
    int64_t j = 0;
    for (; j + kLanes <= count; j += kLanes) {
      step(
          j, [](const float* source) { return load(source); },
          [](auto* target, F x) { store(target, x); });
    }
    if (j < count) {
      const int64_t n = count - j;
      step(
          j, [n](const float* source) { return load_first(source, n); },
          [n](auto* target, F x) { store_first(target, x, n); });
    }
  }

  void operator()(int64_t unit) const {
    Factors factors;
    over_pieces(table, unit, [&](int64_t i, int64_t begin, int64_t count) {
      if (table.gradients[i]) {
        factors.at(*table.steps[i], s);
        float* const gradient = table.gradients[i] + begin;
        if (s.clamp && !finite(gradient, count)) clamp(gradient, count);
      }
      piece(i, begin, count, factors);
    });
  }
};

Status step(const AdamTable& table, const AdamSettings& settings, int64_t* skipped, int threads) {
  const int64_t size = table.count ? table.ends[table.count - 1] : 0;
  const int64_t units = ceil_div(size, kUnit);
  const int useful = static_cast<int>(max64(1, min64(threads, size / kSerial)));
  if (!settings.clamp && !all_finite(table, units, useful)) {
    ++*skipped;
    return kOk;
  }
  const Status status = typed(settings.copy_dtype, [&](auto tag) {
    parallel_units(units, useful, Update<decltype(tag)>{table, settings});
    return kOk;
  });
  if (status.code != Code::ok) return status;
  for (int64_t i = 0; i < table.count; ++i) {
    if (table.gradients[i]) *table.steps[i] += 1.0f;
  }
  return kOk;
}

}  // namespace

const AdamEmaKernels adam_ema_kernels = {step};

}  // namespace sidfast::SIDFAST_ISA
