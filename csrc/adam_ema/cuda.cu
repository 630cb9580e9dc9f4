#include "adam_ema/cuda.h"

#include <math.h>

#include "base/launch.cuh"
#include "base/storage.cuh"

namespace sidfast::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRun = kAccess<float>;
constexpr int kAccesses = static_cast<int>(kAdamPiece) / (kThreads * kRun);
constexpr int64_t kMostReaders = 1024;  // blocks that look for gradients that are not finite

// What Adam multiplies with after so many steps.
struct Factors {
  float rate, scale;
};

// What is the same for every parameter.
struct Common {
  float kept;   // of the parameter, under the weight decay of AdamW
  float share;  // of the average's farther end: the nearer one carries the sum
  int mostly_new;
  int skip;
};

struct Workspace {
  Common* common;
  Factors* factors;  // one for each parameter
  int* bad;          // one for each reader
};

constexpr int64_t kCommonFloats = sizeof(Common) / sizeof(float);
constexpr int64_t kFactorsFloats = sizeof(Factors) / sizeof(float);

Workspace carved(float* p, int64_t parameters) {
  float* const factors = p + kCommonFloats;
  return {reinterpret_cast<Common*>(p), reinterpret_cast<Factors*>(factors),
          reinterpret_cast<int*>(factors + kFactorsFloats * parameters)};
}

struct Piece {
  int64_t parameter, begin, length;
};

SIDFAST_INLINE Piece piece_at(const AdamColumns& columns, const AdamPieces& pieces, int64_t i) {
  const int64_t parameter = pieces.parameters[i], begin = pieces.places[i] * kAdamPiece;
  return {parameter, begin, least(kAdamPiece, columns.sizes[parameter] - begin)};
}

SIDFAST_INLINE bool aligned(const void* p, int bytes) {
  return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(bytes) == 0;
}

SIDFAST_INLINE bool finite(float x) { return fabsf(x) < INFINITY; }

SIDFAST_INLINE bool finite(const float (&x)[kRun]) {
  bool all = true;
#pragma unroll
  for (int i = 0; i < kRun; ++i) all = all && finite(x[i]);
  return all;
}

// Whether what this thread reads of a gradient's piece is finite.
SIDFAST_INLINE bool finite(const float* gradient, int64_t length) {
  float x[kAccesses][kRun];
  const bool wide = aligned(gradient, kAccessBytes);
  const auto at = [](int k) {
    return (static_cast<int64_t>(k) * kThreads + threadIdx.x) * kRun;
  };
  if (wide && length == kAdamPiece) {  // no branch between the accesses: all are under way at once
#pragma unroll
    for (int k = 0; k < kAccesses; ++k) load<kRun>(gradient + at(k), x[k]);
  } else {
#pragma unroll
    for (int k = 0; k < kAccesses; ++k) {
      load_first<kRun>(gradient + at(k), length - at(k), wide, x[k]);
    }
  }
  bool all = true;
#pragma unroll
  for (int k = 0; k < kAccesses; ++k) all = all && finite(x[k]);
  return all;
}

__global__ void __launch_bounds__(kThreads)
    look(AdamColumns columns, AdamPieces pieces, int* bad) {
  __shared__ int found;
  if (threadIdx.x == 0) found = 0;
  __syncthreads();
  bool good = true;
  for (int64_t i = blockIdx.x; i < pieces.count; i += gridDim.x) {
    const Piece piece = piece_at(columns, pieces, i);
    const float* gradient = columns.gradients[piece.parameter];
    if (gradient) good = finite(gradient + piece.begin, piece.length) && good;
  }
  if (!good) found = 1;
  __syncthreads();
  if (threadIdx.x == 0) bad[blockIdx.x] = found;
}

SIDFAST_INLINE double read(const AdamNumber& number, double otherwise) {
  if (!number.p) return otherwise;
  return number.wide ? *static_cast<const double*>(number.p)
                     : static_cast<double>(*static_cast<const float*>(number.p));
}

// Counts the steps, or the one left out.
__global__ void __launch_bounds__(kThreads)
    decide(AdamColumns columns, AdamSettings s, AdamNumber lr_number, AdamNumber beta_number,
           int readers, Workspace workspace, int64_t* skipped) {
  __shared__ int skip;
  if (threadIdx.x == 0) skip = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < readers; i += kThreads) {
    if (workspace.bad[i]) skip = 1;
  }
  __syncthreads();
  const double lr = read(lr_number, s.lr);
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i == 0) {
    const double beta = read(beta_number, s.average_beta);
    const bool mostly_new = beta < 0.5;
    *workspace.common = {static_cast<float>(s.decoupled ? 1.0 - lr * s.weight_decay : 1.0),
                         static_cast<float>(mostly_new ? beta : 1.0 - beta), mostly_new, skip};
    if (skip) ++*skipped;
  }
  if (skip || i >= columns.count || !columns.gradients[i]) return;
  const float steps = *columns.steps[i];
  const double n = static_cast<double>(steps) + 1.0;
  *columns.steps[i] = steps + 1.0f;
  workspace.factors[i] = {static_cast<float>(-lr / (1.0 - pow(s.beta1, n))),
                          static_cast<float>(1.0 / sqrt(1.0 - pow(s.beta2, n)))};
}

// What the update multiplies with, known beforehand.
struct Rates {
  float fresh1, beta2, fresh2, eps;
  float added;  // of the parameter to its gradient
  bool adds, clamp;

  explicit Rates(const AdamSettings& s)
      : fresh1(static_cast<float>(1.0 - s.beta1)),
        beta2(static_cast<float>(s.beta2)),
        fresh2(static_cast<float>(1.0 - s.beta2)),
        eps(static_cast<float>(s.eps)),
        added(static_cast<float>(s.weight_decay)),
        adds(!s.decoupled && s.weight_decay != 0.0),
        clamp(s.clamp) {}
};

template <class T>
SIDFAST_INLINE T* moved(T* p, int64_t by) {
  return p ? p + by : nullptr;
}

template <class Low>
__global__ void __launch_bounds__(kThreads)
    update(AdamColumns columns, AdamPieces pieces, Rates rates, Workspace workspace) {
  const Common common = *workspace.common;
  if (common.skip) return;
  // Backwards, since the gradients that were read last are still in the second-level cache.
  const Piece piece = piece_at(columns, pieces, pieces.count - 1 - blockIdx.x);
  const int64_t i = piece.parameter, begin = piece.begin;
  float* const p = columns.parameters[i] + begin;
  float* const g = moved(columns.gradients[i], begin);
  float* const m = g ? moved(columns.first_moments[i], begin) : nullptr;
  float* const v = g ? columns.second_moments[i] + begin : nullptr;
  float* const average = moved(columns.averages[i], begin);
  Low* const copy = moved(static_cast<Low*>(columns.copies[i]), begin);
  const Factors factors = g ? workspace.factors[i] : Factors{0.0f, 0.0f};
  bool wide = aligned(copy, kRun * static_cast<int>(sizeof(Low)));
  for (const float* each : {p, g, m, v, average}) wide = wide && aligned(each, kAccessBytes);

#pragma unroll 1
  for (int64_t j = threadIdx.x * kRun; j < piece.length; j += kThreads * kRun) {
    const int64_t rest = piece.length - j;
    const auto get = [&](const float* from, float* x) {
      load_first<kRun>(from + j, rest, wide, x);
    };
    const auto put = [&](auto* to, const float* x) { store_first<kRun>(to + j, rest, wide, x); };
    float value[kRun], gradient[kRun], direction[kRun], square[kRun], mean[kRun];
    get(p, value);
    if (average) get(average, mean);
    if (g) {
      get(g, gradient);
      get(v, square);
      if (m) get(m, direction);
      if (rates.clamp && !finite(gradient)) {
#pragma unroll
        for (float& x : gradient) {
          if (!finite(x)) x = x > 0.0f ? 1e5f : x < 0.0f ? -1e5f : 0.0f;
        }
        put(g, gradient);
      }
#pragma unroll
      for (int k = 0; k < kRun; ++k) {
        const float fresh =
            rates.adds ? fmaf(rates.added, value[k], gradient[k]) : gradient[k];
        direction[k] = m ? fmaf(rates.fresh1, fresh - direction[k], direction[k]) : fresh;
        square[k] = fmaf(rates.fresh2 * fresh, fresh, rates.beta2 * square[k]);
        const float ratio = direction[k] / fmaf(sqrtf(square[k]), factors.scale, rates.eps);
        value[k] = fmaf(factors.rate, ratio, value[k] * common.kept);
      }
      if (m) put(m, direction);
      put(v, square);
      put(p, value);
    }
    if (average) {
#pragma unroll
      for (int k = 0; k < kRun; ++k) {
        mean[k] = common.mostly_new ? fmaf(common.share, mean[k] - value[k], value[k])
                                    : fmaf(common.share, value[k] - mean[k], mean[k]);
      }
      put(average, mean);
    }
    if (copy) put(copy, value);
  }
}

Extent blocks(int64_t count) { return {dim3(static_cast<unsigned>(count)), dim3(kThreads)}; }

}  // namespace

int64_t adam_workspace(int64_t parameters) {
  return kCommonFloats + kFactorsFloats * parameters + kMostReaders;
}

Status adam_ema(const AdamColumns& columns, const AdamPieces& pieces, const AdamSettings& settings,
                const AdamNumber& lr, const AdamNumber& average_beta, int64_t* skipped,
                float* workspace, void* stream) {
  if (columns.count == 0) return kOk;
  if (pieces.count > kMostBlocks) return {Code::bad_argument, "too many parameters"};
  const Workspace own = carved(workspace, columns.count);
  const int64_t readers = settings.clamp ? 0 : least(pieces.count, kMostReaders);
  if (readers > 0) {
    const Status status = launch(look, blocks(readers), stream, columns, pieces, own.bad);
    if (status.code != Code::ok) return status;
  }
  const Status status = launch(decide, blocks(ceil_div(columns.count, kThreads)), stream, columns,
                               settings, lr, average_beta, static_cast<int>(readers), own, skipped);
  if (status.code != Code::ok || pieces.count == 0) return status;
  const auto kernel = settings.copy_dtype == Dtype::float16 ? update<float16> : update<bfloat16>;
  return launch(kernel, blocks(pieces.count), stream, columns, pieces, Rates(settings), own);
}

}  // namespace sidfast::cuda
