#include "emulator.h"

#include <setjmp.h>
#include <ucontext.h>

#include <array>
#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

namespace emulator {
namespace {

constexpr size_t kStack = 64 << 10;
constexpr unsigned kWarp = 32;

struct Barrier {
  unsigned arrived = 0, generation = 0;
};

struct Fibre {
  ucontext_t beginning;
  jmp_buf waiting;
  Index index;
  unsigned number;
  bool began = false, ended = false;
};

struct Cluster {
  std::barrier<> barrier;
  std::vector<char*> anchors;  // where each block's shared memory begins
  explicit Cluster(unsigned blocks) : barrier(blocks), anchors(blocks) {}
};

struct Block {
  Block(const Grid& grid, const std::function<void()>& body, Index index, Cluster& cluster)
      : grid(grid), body(body), index(index), cluster(cluster) {}

  const Grid& grid;
  const std::function<void()>& body;
  Index index;
  Cluster& cluster;
  std::vector<Fibre> fibres;
  std::vector<Barrier> warps;
  std::vector<std::array<uint64_t, kWarp>> mailboxes;
  Barrier block, of_cluster;
  unsigned events = 0;  // barriers passed and fibres ended
  Fibre* current = nullptr;
  jmp_buf scheduler;
};

thread_local Block* here = nullptr;
thread_local char anchor;

char* stack(size_t i) {
  thread_local std::vector<std::unique_ptr<char[]>> stacks;
  while (stacks.size() <= i) stacks.emplace_back(new char[kStack]);
  return stacks[i].get();
}

void enter() {
  here->body();
  here->current->ended = true;
  ++here->events;
  _longjmp(here->scheduler, 1);
}

// Lets a fibre run until it waits or ends. Jumps, because switching contexts calls the kernel.
void resume(Block& block, Fibre& fibre) {
  block.current = &fibre;
  if (_setjmp(block.scheduler) != 0) return;
  if (fibre.began) _longjmp(fibre.waiting, 1);
  fibre.began = true;
  setcontext(&fibre.beginning);
}

void yield(Block& block) {
  if (_setjmp(block.current->waiting) == 0) _longjmp(block.scheduler, 1);
}

// Waits until `expected` threads have; the last of them runs `then`.
template <class Then>
void wait(Barrier& barrier, unsigned expected, const Then& then) {
  const unsigned generation = barrier.generation;
  if (++barrier.arrived == expected) {
    then();
    barrier.arrived = 0;
    ++barrier.generation;
    ++here->events;
  }
  while (barrier.generation == generation) yield(*here);
}

void run_block(Block& block) {
  here = &block;
  const Index& size = block.grid.threads;
  const unsigned count = size.x * size.y * size.z;
  block.fibres.resize(count);
  block.warps.resize((count + kWarp - 1) / kWarp);
  block.mailboxes.resize(block.warps.size());
  for (unsigned i = 0; i < count; ++i) {
    Fibre& fibre = block.fibres[i];
    fibre.number = i;
    fibre.index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
    getcontext(&fibre.beginning);
    fibre.beginning.uc_stack.ss_sp = stack(i);
    fibre.beginning.uc_stack.ss_size = kStack;
    fibre.beginning.uc_link = nullptr;
    makecontext(&fibre.beginning, enter, 0);
  }
  unsigned running = count;
  for (unsigned round = block.index.x; running > 0; ++round) {
    const unsigned before = block.events;
    const unsigned start = round * 2654435761u % count;
    for (unsigned i = 0; i < count; ++i) {
      const unsigned number = round % 2 ? (start + i) % count : (start + count - i) % count;
      Fibre& fibre = block.fibres[number];
      if (fibre.ended) continue;
      resume(block, fibre);
      running -= fibre.ended;
    }
    if (block.events == before) {
      std::fprintf(stderr, "emulator: threads wait at different barriers\n");
      std::abort();
    }
  }
}

}  // namespace

void run(const Grid& grid, const std::function<void()>& thread) {
  for (unsigned y = 0; y < grid.blocks.y; ++y) {
    for (unsigned x = 0; x < grid.blocks.x; x += grid.cluster) {
      Cluster cluster(grid.cluster);
      const auto one = [&](unsigned rank) {
        cluster.anchors[rank] = &anchor;
        cluster.barrier.arrive_and_wait();
        Block block(grid, thread, Index(x + rank, y, 0), cluster);
        run_block(block);
        cluster.barrier.arrive_and_drop();
      };
      std::vector<std::thread> others;
      for (unsigned rank = 1; rank < grid.cluster; ++rank) others.emplace_back(one, rank);
      one(0);
      for (std::thread& other : others) other.join();
    }
  }
}

const Index& grid_size() { return here->grid.blocks; }
const Index& block_size() { return here->grid.threads; }
const Index& block_index() { return here->index; }
const Index& thread_index() { return here->current->index; }
unsigned lane() { return here->current->number % kWarp; }
unsigned cluster_size() { return here->grid.cluster; }
unsigned cluster_rank() { return here->index.x % here->grid.cluster; }

void block_barrier() {
  wait(here->block, static_cast<unsigned>(here->fibres.size()), [] {});
}

void warp_barrier() { wait(here->warps[here->current->number / kWarp], kWarp, [] {}); }

void cluster_barrier() {
  wait(here->of_cluster, static_cast<unsigned>(here->fibres.size()),
       [] { here->cluster.barrier.arrive_and_wait(); });
}

uint64_t* warp_mailbox() { return here->mailboxes[here->current->number / kWarp].data(); }

void* of_block(void* shared, unsigned rank) {
  return here->cluster.anchors[rank] + (static_cast<char*>(shared) - &anchor);
}

}  // namespace emulator
