#include "score_losses/cuda.h"

#include <type_traits>

#include "score_losses/dsm.cuh"
#include "score_losses/launches.cuh"
#include "score_losses/pair.cuh"
#include "score_losses/rescale.cuh"

namespace sidfast::cuda {
namespace {

// then(image, network) with values of their types.
template <class Then>
Status typed_both(Dtype images, Dtype networks, const Then& then) {
  return typed(networks, [&](auto network) -> Status {
    if (images == networks) return then(network, network);
    if constexpr (!std::is_same_v<decltype(network), float>) {
      if (images == Dtype::float32) return then(float{}, network);
    }
    return {Code::bad_argument, "images must be float32 or of the raw outputs' type"};
  });
}

template <class Image, class Network>
Raw<Image, Network> source(const void* images, const RawArguments& given, const DeviceKey& key,
                           const RowShape& shape, int64_t channels) {
  return {static_cast<const Image*>(images),
          static_cast<const Image*>(given.noisy),
          given.sigma,
          given.c_skip,
          given.c_out,
          key,
          channels,
          shape.size / channels};
}

}  // namespace

int64_t workspace(Dtype dtype, const RowShape& shape) {
  return typed(dtype, [&](auto tag) {
    return workspace_of<Pair<Denoised<decltype(tag)>, Sid>>(shape);
  });
}

int64_t workspace_raw(const RowShape& shape) {
  return workspace_of<Pair<Raw<float, float>, Sid>>(shape);
}

Status sid(const SidArguments& given, Dtype dtype, const RowShape& shape, double* workspace,
           void* stream) {
  return typed(dtype, [&](auto tag) {
    using T = decltype(tag);
    const Denoised<T> source{static_cast<const T*>(given.images)};
    return run(Pair<Denoised<T>, Sid>(source, given), shape, workspace, stream);
  });
}

Status vsd(const VsdArguments& given, Dtype dtype, const RowShape& shape, double* workspace,
           void* stream) {
  return typed(dtype, [&](auto tag) {
    using T = decltype(tag);
    const Denoised<T> source{static_cast<const T*>(given.images)};
    return run(Pair<Denoised<T>, Vsd>(source, given), shape, workspace, stream);
  });
}

Status dsm(const DsmArguments& given, Dtype dtype, const RowShape& shape, double* workspace,
           void* stream) {
  return typed(dtype, [&](auto tag) {
    using T = decltype(tag);
    const Denoised<T> source{static_cast<const T*>(given.images)};
    return run(Dsm<Denoised<T>>(source, given), shape, workspace, stream);
  });
}

Status sid_raw(const SidArguments& given, const RawArguments& raw, const DeviceKey& key,
               Dtype images, Dtype networks, const RowShape& shape, int64_t channels,
               double* workspace, void* stream) {
  return typed_both(images, networks, [&](auto image, auto network) {
    using Source = Raw<decltype(image), decltype(network)>;
    const Source from = source<decltype(image), decltype(network)>(given.images, raw, key, shape,
                                                                   channels);
    return run(Pair<Source, Sid>(from, given), shape, workspace, stream);
  });
}

Status dsm_raw(const DsmArguments& given, const RawArguments& raw, const DeviceKey& key,
               Dtype images, Dtype networks, const RowShape& shape, int64_t channels,
               double* workspace, void* stream) {
  return typed_both(images, networks, [&](auto image, auto network) {
    using Source = Raw<decltype(image), decltype(network)>;
    const Source from = source<decltype(image), decltype(network)>(given.images, raw, key, shape,
                                                                   channels);
    return run(Dsm<Source>(from, given), shape, workspace, stream);
  });
}

Status rescale(const Rescaling& given, const RowShape& shape, void* stream) {
  if (shape.samples == 0 || shape.size == 0) return kOk;
  bool aligned = shape.size % kRescaleRun == 0;
  for (int i = 0; i < given.count; ++i) {
    aligned &= reinterpret_cast<uintptr_t>(given.gradients[i]) % kAccessBytes == 0;
  }
  const int64_t chunks = ceil_div(shape.size, kRescaleChunk);
  const Extent extent{dim3(static_cast<unsigned>(least(shape.samples * chunks, kMostBlocks))),
                      dim3(kRescaleThreads)};
  return launch(rescale_chunks, extent, stream, given, shape, chunks, aligned);
}

}  // namespace sidfast::cuda
