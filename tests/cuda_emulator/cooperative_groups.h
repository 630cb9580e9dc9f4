// Thread-block clusters, for kernels that run on a CPU: see emulator.h.
#pragma once

#include "emulator.h"

namespace cooperative_groups {

struct cluster_group {
  unsigned block_rank() const { return emulator::cluster_rank(); }
  unsigned num_blocks() const { return emulator::cluster_size(); }
  void sync() const { emulator::cluster_barrier(); }
  template <class T>
  T* map_shared_rank(T* shared, unsigned rank) const {
    return static_cast<T*>(emulator::of_block(shared, rank));
  }
};

inline cluster_group this_cluster() { return {}; }

}  // namespace cooperative_groups
