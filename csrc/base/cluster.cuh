// Thread-block clusters (sm_90 and later): blocks that reach into each other's shared memory. In
// code for older architectures every block is its own cluster.
#pragma once

#include <cooperative_groups.h>

#include "base/lane.cuh"

namespace sidfast::cuda {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900

SIDFAST_INLINE int cluster_rank() { return 0; }
SIDFAST_INLINE int cluster_blocks() { return 1; }
SIDFAST_INLINE void cluster_sync() { __syncthreads(); }
template <class T>
SIDFAST_INLINE T* of_block(T* shared, int) {
  return shared;
}

#else

SIDFAST_INLINE int cluster_rank() {
  return static_cast<int>(cooperative_groups::this_cluster().block_rank());
}
SIDFAST_INLINE int cluster_blocks() {
  return static_cast<int>(cooperative_groups::this_cluster().num_blocks());
}
SIDFAST_INLINE void cluster_sync() { cooperative_groups::this_cluster().sync(); }

// The same variable in the shared memory of another block of the cluster.
template <class T>
SIDFAST_INLINE T* of_block(T* shared, int rank) {
  return cooperative_groups::this_cluster().map_shared_rank(shared, rank);
}

#endif

}  // namespace sidfast::cuda
