// Kernels of any loss, and their launches: samples that stay on the chip between their sums and
// their gradients, and larger ones in two phases.
//
// A loss has enter(), what a thread keeps of a sample, read() of an access, add() to the sums,
// weigh() of a sample's sums, factors() of its gradients, and write() of an access's gradients.
#pragma once

#include <atomic>

#include "score_losses/rows.cuh"

namespace sidfast::cuda {

// A block holds a slice of a sample in registers, kHeld elements a thread: with more threads of
// fewer, registers spill.
inline constexpr int kHeld = 24;
inline constexpr int kMostSlice = 12288;  // elements: 3 x 64 x 64
inline constexpr int kMostThreads = kMostSlice / kHeld;
inline constexpr int kGoodSlice = 3072;   // leaves room for other blocks, whose reads hide its writes
inline constexpr int kMostCluster = 8;    // blocks, on every device with clusters

// What does not fit is summed in chunks and read again for the gradients.
inline constexpr int kChunkThreads = 256;
inline constexpr int kChunkAccesses = 4;  // that a thread makes in a chunk, unless chunks get too many
inline constexpr int64_t kMostChunks = 1024;

template <class Loss>
inline constexpr int kAccesses = kHeld / Loss::kRun;

struct Chunks {
  int64_t count;   // of a sample
  int64_t length;  // elements
};

// Depends on a sample's size alone: a sample's bits do not depend on its batch.
template <class Loss>
Chunks chunks_of(int64_t size) {
  constexpr int64_t kLength = kChunkThreads * kChunkAccesses * Loss::kRun;
  const int64_t wanted = least(ceil_div(size, kLength), kMostChunks);
  const int64_t length = ceil_div(ceil_div(size, wanted), kLength) * kLength;
  return {ceil_div(size, length), length};
}

// One cluster of blocks per sample, one read of the inputs.
template <class Loss>
__global__ void __launch_bounds__(kMostThreads)
    on_chip(Loss loss, RowShape shape) {
  __shared__ Sums<float> parts[kMostWarps];
  __shared__ Sums<double> block_total;
  __shared__ Factors factors;
  const int rank = cluster_rank(), blocks = cluster_blocks();
  const int64_t slice = ceil_div(ceil_div(shape.size, blocks), Loss::kRun) * Loss::kRun;
  const int64_t begin = rank * slice, length = least(slice, shape.size - begin);
  for (int64_t sample = blockIdx.x / blocks; sample < shape.samples;
       sample += gridDim.x / blocks) {
    const auto run = [&](int access) {
      const int64_t offset =
          static_cast<int64_t>(access * blockDim.x + threadIdx.x) * Loss::kRun;
      return WholeRun{sample * shape.size, begin + offset, offset < length};
    };
    const auto own = loss.enter(sample);
    typename Loss::Held held[kAccesses<Loss>];
#pragma unroll
    for (int i = 0; i < kAccesses<Loss>; ++i) loss.read(run(i), own, &held[i]);
    Sums<float> sums{0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < kAccesses<Loss>; ++i) loss.add(held[i], &sums);
    Sums<double> total = over_block(sums, parts);
    if (blocks > 1) {
      if (threadIdx.x == 0) block_total = total;
      cluster_sync();
    }
    if (threadIdx.x == 0) {
      if (blocks > 1) {
        total = {0.0, 0.0};
        for (int block = 0; block < blocks; ++block) total.add(*of_block(&block_total, block));
      }
      const Outcome outcome = loss.weigh(sample, total, shape.size);
      const bool good = conclude(outcome, total, loss.results, sample, rank == 0);
      factors = loss.factors(sample, outcome.weight, good);
    }
    __syncthreads();
    const Factors mine = factors;
#pragma unroll
    for (int i = 0; i < kAccesses<Loss>; ++i) loss.write(run(i), held[i], mine);
    if (blocks > 1) cluster_sync();  // nobody leaves, or writes block_total, while it is read
  }
}

// each(run) for this thread's share of a chunk.
template <class Loss, class Each>
SIDFAST_INLINE void over_chunk(const RowShape& shape, const Chunks& chunks, int64_t sample,
                               int64_t chunk, bool aligned, const Each& each) {
  const int64_t begin = chunk * chunks.length;
  const int64_t length = least(chunks.length, shape.size - begin);
#pragma unroll kChunkAccesses
  for (int64_t offset = threadIdx.x * Loss::kRun; offset < length;
       offset += kChunkThreads * Loss::kRun) {
    each(Run{sample * shape.size, begin + offset, length - offset, aligned});
  }
}

// First phase: the sums of every chunk; the gradients too, where their factor is known beforehand.
template <class Loss>
__global__ void __launch_bounds__(kChunkThreads)
    sum_chunks(Loss loss, RowShape shape, Chunks chunks, bool aligned, Sums<double>* partial) {
  __shared__ Sums<float> parts[kMostWarps];
  for (int64_t unit = blockIdx.x; unit < shape.samples * chunks.count; unit += gridDim.x) {
    const int64_t sample = unit / chunks.count;
    const auto own = loss.enter(sample);
    Factors factors{};
    if constexpr (Loss::kOnePass) factors = loss.factors(sample, loss.weight(sample), true);
    Sums<float> sums{0.0f, 0.0f};
    over_chunk<Loss>(shape, chunks, sample, unit % chunks.count, aligned, [&](const Run& run) {
      typename Loss::Held held;
      loss.read(run, own, &held);
      loss.add(held, &sums);
      if constexpr (Loss::kOnePass) loss.write(run, held, factors);
    });
    const Sums<double> total = over_block(sums, parts);
    if (threadIdx.x == 0) partial[unit] = total;
    __syncthreads();
  }
}

// Second phase: the losses, and the gradients that the first did not write or that are zero.
template <class Loss>
__global__ void __launch_bounds__(kChunkThreads)
    finish_chunks(Loss loss, RowShape shape, Chunks chunks, int64_t visited, bool aligned,
                  const Sums<double>* partial) {
  __shared__ Factors factors;
  for (int64_t unit = blockIdx.x; unit < shape.samples * visited; unit += gridDim.x) {
    const int64_t sample = unit / visited, chunk = unit % visited;
    if (threadIdx.x < kWarp) {
      Sums<double> total{0.0, 0.0};
      for (int64_t i = threadIdx.x; i < chunks.count; i += kWarp) {
        total.add(partial[sample * chunks.count + i]);
      }
      total = over_warp(total);
      if (threadIdx.x == 0) {
        const Outcome outcome = loss.weigh(sample, total, shape.size);
        const bool good = conclude(outcome, total, loss.results, sample, chunk == 0);
        factors = loss.factors(sample, outcome.weight, good);
      }
    }
    __syncthreads();
    const Factors mine = factors;
    if (!Loss::kOnePass || !mine.good) {
      const auto own = loss.enter(sample);
      over_chunk<Loss>(shape, chunks, sample, chunk, aligned, [&](const Run& run) {
        typename Loss::Held held{};
        if constexpr (!Loss::kOnePass) loss.read(run, own, &held);
        loss.write(run, held, mine);
      });
    }
    __syncthreads();
  }
}

// Whether the current device runs code of this library that knows clusters.
template <class Loss>
bool has_clusters() {
  constexpr int kDevices = 64;
  static std::atomic<signed char> known[kDevices];  // 0 unknown, 1 yes, -1 no
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return false;
  const bool cached = device < kDevices;
  if (cached && known[device]) return known[device] > 0;
  int launches = 0;
  cudaFuncAttributes attributes{};
  const bool has =
      cudaDeviceGetAttribute(&launches, cudaDevAttrClusterLaunch, device) == cudaSuccess &&
      launches && cudaFuncGetAttributes(&attributes, on_chip<Loss>) == cudaSuccess &&
      attributes.ptxVersion >= 90;
  if (cached) known[device] = has ? 1 : -1;
  return has;
}

// Blocks that share a sample; 0 if it does not fit into as many as the device allows, or is no whole
// number of accesses.
template <class Loss>
int cluster_of(int64_t size) {
  const int most = has_clusters<Loss>() ? kMostCluster : 1;
  if (size % Loss::kRun != 0 || size > static_cast<int64_t>(most) * kMostSlice) return 0;
  int blocks = 1;
  while (blocks < most && static_cast<int64_t>(blocks) * kGoodSlice < size) blocks *= 2;
  return blocks;
}

template <class Loss>
Extent on_chip_extent(const RowShape& shape, int blocks) {
  const int64_t slice = ceil_div(shape.size, blocks);
  const int64_t warps = ceil_div(slice, kWarp * kHeld);
  const int64_t clusters = least(shape.samples, kMostBlocks / blocks);
  return {dim3(static_cast<unsigned>(clusters * blocks)),
          dim3(static_cast<unsigned>((warps > 0 ? warps : 1) * kWarp)), blocks};
}

inline Extent chunks_extent(int64_t units) {
  return {dim3(static_cast<unsigned>(least(units, kMostBlocks))), dim3(kChunkThreads)};
}

template <class Loss>
Status run(const Loss& loss, const RowShape& shape, double* workspace, void* stream) {
  if (shape.samples == 0) return kOk;
  const bool aligned = loss.aligned(shape.size);
  if (const int blocks = cluster_of<Loss>(shape.size)) {
    if (!aligned) return {Code::bad_argument, "tensors must be aligned to 16 bytes"};
    return launch(on_chip<Loss>, on_chip_extent<Loss>(shape, blocks), stream, loss, shape);
  }
  const Chunks chunks = chunks_of<Loss>(shape.size);
  const int64_t visited = loss.wants_gradients() ? chunks.count : 1;
  auto* partial = reinterpret_cast<Sums<double>*>(workspace);
  const Status status = launch(sum_chunks<Loss>, chunks_extent(shape.samples * chunks.count),
                               stream, loss, shape, chunks, aligned, partial);
  if (status.code != Code::ok) return status;
  return launch(finish_chunks<Loss>, chunks_extent(shape.samples * visited), stream, loss, shape,
                chunks, visited, aligned, static_cast<const Sums<double>*>(partial));
}

// Doubles that run() needs.
template <class Loss>
int64_t workspace_of(const RowShape& shape) {
  if (cluster_of<Loss>(shape.size)) return 0;
  return 2 * shape.samples * chunks_of<Loss>(shape.size).count;
}

template <class Then>
auto typed(Dtype dtype, const Then& then) {
  switch (dtype) {
    case Dtype::bfloat16:
      return then(bfloat16{});
    case Dtype::float16:
      return then(float16{});
    default:
      return then(float{});
  }
}

}  // namespace sidfast::cuda
