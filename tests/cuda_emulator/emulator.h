// Runs CUDA kernels on a CPU, so that they can be tested where there is no GPU.
//
// Each thread of a block is a fibre, which runs until it waits at a barrier or ends. The order in
// which fibres get their turns changes from round to round, so that results which depend on it show.
// Each block of a cluster is a thread of the operating system, whose thread-local variables are the
// block's shared memory. Blocks without a cluster, and clusters, run one after the other.
#pragma once

#include <cstdint>
#include <functional>

namespace emulator {

struct Index {
  unsigned x, y, z;
  Index(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct Grid {
  Index blocks, threads;
  unsigned cluster = 1;  // blocks along x
};

// Runs `thread` as every thread of the grid.
void run(const Grid& grid, const std::function<void()>& thread);

// What the thread that asks is, and what it can wait for.
const Index& grid_size();
const Index& block_size();
const Index& block_index();
const Index& thread_index();
unsigned lane();
unsigned cluster_size();
unsigned cluster_rank();
void block_barrier();
void warp_barrier();
void cluster_barrier();

uint64_t* warp_mailbox();  // one slot for each lane
void* of_block(void* shared, unsigned rank);

}  // namespace emulator
