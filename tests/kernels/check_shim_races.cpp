// The race detector: what it must see, and what it must let pass. Without it (check_shim) all of these end well.
#include "check_shim.hpp"

namespace {

using namespace samrt;

enum class Between { kNothing, kWarpBarrier, kBlockBarrier };

template <Between between>
void wait_between() {
  if (between == Between::kWarpBarrier) __syncwarp();
  if (between == Between::kBlockBarrier) __syncthreads();
}

// Each thread writes its place and reads that of the thread `Distance` further.
template <Between between, int Distance>
void write_read_kernel(int* out) {
  auto shared = reinterpret_cast<int*>(dynamic_shared());
  shared[threadIdx.x] = threadIdx.x;
  wait_between<between>();
  out[threadIdx.x] = shared[(threadIdx.x + Distance) % blockDim.x];
}

// All read one place; then whoever comes last writes it.
template <Between between>
void read_write_kernel(int* out) {
  auto shared = reinterpret_cast<int*>(dynamic_shared());
  if (threadIdx.x == 0) host::exchange(shared + 64, 0);
  if (threadIdx.x == 0) shared[0] = 1;
  __syncthreads();
  out[threadIdx.x] = shared[0];
  wait_between<between>();
  if (arrivals(shared + 64) == static_cast<int>(blockDim.x) - 1) shared[0] = 2;
}

// Whoever comes first writes one place, and the others read it.
void first_writes_kernel(int* out) {
  if (arrivals(out) == 0) {
    out[1] = 1;
  } else {
    out[2 + threadIdx.x] = out[1];
  }
}

void write_write_kernel(int*) { reinterpret_cast<int*>(dynamic_shared())[threadIdx.x / 2] = 1; }

void neighbouring_bytes_kernel(int*) { dynamic_shared()[threadIdx.x] = 1; }

// Only the first warp reads after a barrier of its own; the second writes.
void other_warps_barrier_kernel(int* out) {
  auto shared = reinterpret_cast<int*>(dynamic_shared());
  if (threadIdx.x == 40) shared[0] = 1;
  __syncwarp();
  if (threadIdx.x == 3) out[0] = shared[0];
}

void count_kernel(int* out) { *out += 1; }

// What lanes do together does not order their memory, but for __syncwarp.
void vote_is_no_barrier_kernel(int* out) {
  auto shared = reinterpret_cast<int*>(dynamic_shared());
  shared[threadIdx.x] = 1;
  __any_sync(kFullWarp, 1);
  out[threadIdx.x] = shared[threadIdx.x ^ 1];
}

// Of each block by itself nothing is wrong.
void blocks_write_kernel(int* out) {
  if (threadIdx.x == 0) out[0] = blockIdx.x;
}
void blocks_read_kernel(int* out) { out[1 + blockIdx.x * blockDim.x + threadIdx.x] = out[0]; }
void block_writes_what_others_read_kernel(int* out) {
  if (threadIdx.x) return;
  if (blockIdx.x == 1) {
    out[0] = 5;
  } else {
    out[1 + blockIdx.x] = out[0];
  }
}

alignas(16) const unsigned kPieces[4 * 128] = {};

// A thread's own wait brings its own copies only; for those of others it takes a barrier.
template <Between between, int Distance>
void copied_by_another_kernel(int* out) {
  auto shared = reinterpret_cast<int*>(dynamic_shared());
  copy_async_16(shared + 4 * threadIdx.x, kPieces + 4 * threadIdx.x, true);
  copy_async_commit();
  copy_async_wait<0>();
  wait_between<between>();
  out[threadIdx.x] = shared[4 * ((threadIdx.x + Distance) % blockDim.x)];
}

// Copies into a tile that others may still read.
template <Between between>
void copy_over_kernel(int* out) {
  auto shared = reinterpret_cast<int*>(dynamic_shared());
  memset(shared + 4 * threadIdx.x, 0, 16);
  __syncthreads();
  uint32_t registers[4];
  load_matrices(registers, shared + 4 * ((threadIdx.x + 32) % blockDim.x));
  out[threadIdx.x] = registers[0];
  wait_between<between>();
  copy_async_16(shared + 4 * threadIdx.x, kPieces, true);
  copy_async_commit();
  copy_async_wait<0>();
}

// The barrier comes between the copy's begin and its end, and does not order it.
void barrier_before_wait_kernel(int* out) {
  auto shared = reinterpret_cast<int*>(dynamic_shared());
  copy_async_16(shared + 4 * threadIdx.x, kPieces, true);
  copy_async_commit();
  __syncthreads();
  if (threadIdx.x == 0) out[0] = shared[4 * 37];
  copy_async_wait<0>();
}

// A thread's own copy, before it waited for it.
void own_copy_too_early_kernel(int* out) {
  auto shared = reinterpret_cast<int*>(dynamic_shared());
  copy_async_16(shared + 4 * threadIdx.x, kPieces, true);
  copy_async_commit();
  out[threadIdx.x] = shared[4 * threadIdx.x];
  copy_async_wait<0>();
}

// The copy begins where others have just read; that its end is ordered does not help.
void copy_begins_too_early_kernel(int* out) {
  auto shared = reinterpret_cast<int*>(dynamic_shared());
  if (threadIdx.x == 0) host::exchange(shared + 64, 0);
  if (threadIdx.x < 4) shared[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = shared[0];
  if (arrivals(shared + 64) == static_cast<int>(blockDim.x) - 1) copy_async_16(shared, kPieces, true);
  copy_async_commit();
  __syncthreads();
  copy_async_wait<0>();
}

// The copy ends where another lane then reads; that its beginning is ordered does not help.
void copy_ends_unordered_kernel(int* out) {
  auto shared = reinterpret_cast<int*>(dynamic_shared());
  if (threadIdx.x == 0) copy_async_16(shared, kPieces, true);
  copy_async_commit();
  __syncthreads();
  copy_async_wait<0>();
  __any_sync(kFullWarp, 1);
  if (threadIdx.x == 5) out[0] = shared[0];
}

void reused_memory_kernel(int* out) {
  auto shared = reinterpret_cast<int*>(dynamic_shared());
  shared[(threadIdx.x + blockIdx.x) % 64] = 1;
  out[blockIdx.x * 64 + threadIdx.x] = shared[(threadIdx.x + blockIdx.x) % 64];
}

template <void (*kernel)(int*), unsigned Threads = 64, unsigned Blocks = 1>
void on_blocks() {
  std::vector<int> out(2 + Blocks * Threads);
  EXPECT(launch(kernel, dim3(Blocks), dim3(Threads), 4096, nullptr, out.data()) == cudaSuccess);
}

// What a launch did has no bearing on the next.
void two_launches() {
  std::vector<int> out(65);
  for (int i = 0; i < 2; ++i) {
    EXPECT(launch(blocks_write_kernel, dim3(1), dim3(64), 0, nullptr, out.data()) == cudaSuccess);
    EXPECT(launch(blocks_read_kernel, dim3(1), dim3(64), 0, nullptr, out.data()) == cudaSuccess);
  }
}

}  // namespace

const std::vector<Check> kRaceChecks = {
    {"fine_same_thread", on_blocks<write_read_kernel<Between::kNothing, 0>>},
    {"fine_block_barrier", on_blocks<write_read_kernel<Between::kBlockBarrier, 33>>},
    {"fine_warp_barrier", on_blocks<write_read_kernel<Between::kWarpBarrier, 1>, 32>},
    {"fine_read_then_write", on_blocks<read_write_kernel<Between::kBlockBarrier>>},
    {"fine_read_then_write_in_a_warp", on_blocks<read_write_kernel<Between::kWarpBarrier>, 32>},
    {"fine_neighbouring_bytes", on_blocks<neighbouring_bytes_kernel>},
    {"fine_blocks_read", on_blocks<blocks_read_kernel, 64, 3>},
    {"fine_copy", on_blocks<copied_by_another_kernel<Between::kBlockBarrier, 33>>},
    {"fine_own_copy", on_blocks<copied_by_another_kernel<Between::kNothing, 0>>},
    {"fine_copy_over", on_blocks<copy_over_kernel<Between::kBlockBarrier>>},
    {"fine_reused_memory", on_blocks<reused_memory_kernel, 64, 50>},
    {"fine_two_launches", two_launches},
    {"race_in_a_warp", on_blocks<write_read_kernel<Between::kNothing, 1>, 32>},
    {"race_between_warps", on_blocks<write_read_kernel<Between::kWarpBarrier, 32>>},
    {"race_with_another_warp", on_blocks<other_warps_barrier_kernel>},
    {"race_read_then_write", on_blocks<read_write_kernel<Between::kNothing>>},
    {"race_read_then_write_across_warps", on_blocks<read_write_kernel<Between::kWarpBarrier>>},
    {"race_read_then_write_in_a_warp", on_blocks<read_write_kernel<Between::kNothing>, 32>},
    {"race_first_writes", on_blocks<first_writes_kernel>},
    {"race_write_write", on_blocks<write_write_kernel>},
    {"race_count", on_blocks<count_kernel>},
    {"race_count_of_blocks", on_blocks<count_kernel, 1, 3>},
    {"race_vote_is_no_barrier", on_blocks<vote_is_no_barrier_kernel, 32>},
    {"race_blocks_write", on_blocks<blocks_write_kernel, 64, 3>},
    {"race_block_writes_what_others_read", on_blocks<block_writes_what_others_read_kernel, 64, 3>},
    {"race_copied_by_another", on_blocks<copied_by_another_kernel<Between::kWarpBarrier, 33>>},
    {"race_copied_by_another_lane", on_blocks<copied_by_another_kernel<Between::kNothing, 1>, 32>},
    {"race_copy_over", on_blocks<copy_over_kernel<Between::kNothing>>},
    {"race_own_copy_too_early", on_blocks<own_copy_too_early_kernel>},
    {"race_copy_begins_too_early", on_blocks<copy_begins_too_early_kernel>},
    {"race_copy_ends_unordered", on_blocks<copy_ends_unordered_kernel, 32>},
    {"race_barrier_before_wait", on_blocks<barrier_before_wait_kernel>},
};
