#include "score_losses/cuda.h"

#include "score_losses/dsm.cuh"
#include "score_losses/launches.cuh"
#include "score_losses/pair.cuh"

namespace sidfast::cuda {

int64_t workspace(Dtype dtype, const RowShape& shape) {
  return typed(dtype, [&](auto tag) {
    using Loss = Pair<Denoised<decltype(tag)>, Sid>;
    if (cluster_of<Loss>(shape.size)) return int64_t{0};
    return 2 * shape.samples * chunks_of<Loss>(shape.size).count;
  });
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

}  // namespace sidfast::cuda
