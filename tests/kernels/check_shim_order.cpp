// In which order threads run, and who waits for whom.
#include <algorithm>

#include "check_shim.hpp"

namespace {

using namespace samrt;

void order_kernel(int* next, int* order) {
  for (int round = 0; round < 3; ++round) {
    order[arrivals(next)] = blockIdx.x * blockDim.x + threadIdx.x;
    __syncwarp();
  }
}

std::vector<int> order_of(uint64_t seed) {
  samrt_host_set_seed(seed);
  std::vector<int> order(3 * 4 * 128);
  int next = 0;
  EXPECT(launch(order_kernel, dim3(4), dim3(128), 0, nullptr, &next, order.data()) == cudaSuccess);
  EXPECT(next == 3 * 4 * 128);
  return order;
}

void seeds() {
  EXPECT(order_of(1) == order_of(1));
  for (uint64_t seed = 2; seed < 20; ++seed) EXPECT(order_of(1) != order_of(seed));
}

// One warp gets far ahead of another under some seeds, and they take turns under others; and any block may be first.
void interleavings() {
  int finished_before_another_began = 0, took_turns = 0;
  std::vector<int> first_blocks;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    const std::vector<int> order = order_of(seed);
    first_blocks.push_back(order[0] / 128);
    const auto first = order.begin();
    const int warp = order[0] / 32;
    const auto other = std::find_if(first, order.end(), [warp](int thread) { return thread / 32 != warp; });
    (other - first == 3 * 32 ? finished_before_another_began : took_turns) += 1;
  }
  EXPECT(finished_before_another_began > 3 && took_turns > 3);
  for (int block = 0; block < 4; ++block) {
    EXPECT(std::find(first_blocks.begin(), first_blocks.end(), block) != first_blocks.end());
  }
}

// A thread that has ended is not waited for.
void ended_kernel(int* out) {
  if (threadIdx.x % 2) return;
  arrivals(out);
  __syncthreads();
  if (threadIdx.x == 0) out[1] = out[0];
}

void ended_threads() {
  int out[2] = {};
  run_block(ended_kernel, 96, 0, out);
  EXPECT(out[0] == 48 && out[1] == 48);
}

// Each thread reads what its neighbour in the next warp wrote.
template <bool Barrier>
void neighbour_kernel(int* out) {
  auto shared = reinterpret_cast<int*>(dynamic_shared());
  shared[threadIdx.x] = threadIdx.x;
  if (Barrier) {
    __syncthreads();
  } else {
    __syncwarp();
  }
  out[threadIdx.x] = shared[(threadIdx.x + 32) % 128];
}

template <bool Barrier>
int wrong_seeds() {
  int wrong = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    samrt_host_set_seed(seed);
    int out[128];
    run_block(neighbour_kernel<Barrier>, 128, sizeof out, out);
    bool right = true;
    for (int i = 0; i < 128; ++i) right = right && out[i] == (i + 32) % 128;
    wrong += !right;
  }
  return wrong;
}

void barrier() { EXPECT(wrong_seeds<true>() == 0); }
void missing_barrier_gives_wrong_results() { EXPECT(wrong_seeds<false>() > 10); }

}  // namespace

const std::vector<Check> kOrderChecks = {
    {"seeds", seeds},
    {"interleavings", interleavings},
    {"ended_threads", ended_threads},
    {"barrier", barrier},
    {"missing_barrier_gives_wrong_results", missing_barrier_gives_wrong_results},
};
