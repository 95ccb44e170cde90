// Kernels that are wrong, and must be stopped.
#include "check_shim.hpp"

namespace {

using namespace samrt;

void no_shared_memory_kernel() { dynamic_shared()[0] = 1; }
void ldmatrix_misaligned_kernel() {
  uint32_t registers[4];
  load_matrices(registers, dynamic_shared() + 16 * threadIdx.x + (threadIdx.x == 7 ? 4 : 0));
}
void ldmatrix_past_the_end_kernel() {
  uint32_t registers[4];
  load_matrices(registers, dynamic_shared() + 16 * (threadIdx.x + 1));
}
void ldmatrix_kernel() {
  uint32_t registers[4];
  load_matrices(registers, dynamic_shared() + 16 * threadIdx.x);
}
void ldmatrix_of_global_kernel() {
  alignas(16) static unsigned char elsewhere[16];
  uint32_t registers[4];
  load_matrices(registers, threadIdx.x == 3 ? elsewhere : dynamic_shared());
}

// One byte past what the launch asked for.
void write_past_the_end_kernel(size_t size) { dynamic_shared()[size] = 1; }
void read_past_the_end_kernel(const int* from, int* out) { *out = from[8]; }
// The alignment that a wide access needs.
void misaligned_piece_kernel(uint4* out) { *out = *reinterpret_cast<const uint4*>(dynamic_shared() + 8); }

void some_lanes_kernel() {
  if (threadIdx.x < 16) __syncwarp();
}
void ended_lane_kernel() {
  if (threadIdx.x == 40) return;
  __shfl_xor_sync(kFullWarp, 1, 1);
}
void different_collectives_kernel() {
  if (threadIdx.x < 16) {
    __syncwarp();
  } else {
    __any_sync(kFullWarp, 1);
  }
}
void barrier_in_some_warps_kernel() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __shfl_xor_sync(kFullWarp, 1, threadIdx.x == 63 ? (__syncthreads(), 1) : 0);
  }
}
void different_barriers_kernel() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
void divergent_mma_kernel() {
  float c[4] = {};
  const uint32_t a[4] = {};
  if (threadIdx.x % 2) {
    multiply_add<__half>(c, a, 0, 0);
  } else {
    multiply_add<__half>(c, a, 0, 0);
  }
}
void part_of_a_warp_kernel() { __syncwarp(0xfffffffeu); }

template <void (*kernel)(), unsigned Threads = 32, size_t Bytes = 512>
void stopped() {
  run_block(kernel, Threads, Bytes);
}

void write_past_the_end() { run_block(write_past_the_end_kernel, 1, 100, size_t{100}); }
void read_past_the_end() {
  int *from = nullptr, out = 0;
  EXPECT(cudaMalloc(&from, 32) == cudaSuccess);
  run_block(read_past_the_end_kernel, 1, 0, from, &out);
}
void misaligned_piece() {
  uint4 out;
  run_block(misaligned_piece_kernel, 1, 64, &out);
}

}  // namespace

const std::vector<Check> kFaultChecks = {
    {"no_shared_memory", stopped<no_shared_memory_kernel, 1, 0>},
    {"ldmatrix_misaligned", stopped<ldmatrix_misaligned_kernel, 32, 1024>},
    {"ldmatrix_past_the_end", stopped<ldmatrix_past_the_end_kernel>},
    {"ldmatrix_half_outside", stopped<ldmatrix_kernel, 32, 504>},
    {"ldmatrix_of_global", stopped<ldmatrix_of_global_kernel>},
    {"write_past_the_end", write_past_the_end},
    {"read_past_the_end", read_past_the_end},
    {"misaligned_piece", misaligned_piece},
    {"some_lanes", stopped<some_lanes_kernel>},
    {"ended_lane", stopped<ended_lane_kernel, 64>},
    {"different_collectives", stopped<different_collectives_kernel>},
    {"barrier_in_some_warps", stopped<barrier_in_some_warps_kernel, 64>},
    {"different_barriers", stopped<different_barriers_kernel, 64>},
    {"divergent_mma", stopped<divergent_mma_kernel>},
    {"part_of_a_warp", stopped<part_of_a_warp_kernel>},
};
