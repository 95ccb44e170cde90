// The threads of one block: who runs, and who waits for whom.
//
// A thread runs until it waits for others; who comes next is drawn from a seeded generator, now finely interleaved, now
// one warp as far ahead as the barriers let it. The order of the blocks is drawn too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "elements.hpp"
#include "runtime.hpp"

namespace samrt {

constexpr unsigned kFullWarp = 0xffffffffu;

namespace host {

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

// A place in a kernel's source.
struct Site {
  const char* file;
  int line;
};
// As a default argument: where the call stands.
constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }

// What threads wait in together.
enum class Kind {
  kSyncThreads,
  kSyncWarp,
  kLoadMatrices,
  kLoadMatricesTransposed,
  kMultiplyAddHalf,
  kMultiplyAddBfloat16,
  kShuffleUp,
  kShuffleXor,
  kVote,
};
const char* name_of(Kind kind);

// Call `kernel` in each thread of each block.
cudaError_t run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& kernel);

// Wait until all lanes of the warp came here with the same kind. The last to come executes the collective for all of
// them. `mask` has to be the whole warp's: kernels use no other.
void meet_warp(Kind kind, uint32_t mask, void* operands, Site site);
// Wait for all threads of the block that have not ended.
void meet_block(Site site);

// End the process with a line about the thread that runs, or about another lane of its warp.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
[[noreturn]] void fail_lane(unsigned lane, const char* format, ...) __attribute__((format(printf, 2, 3)));

// Which thread of the block runs, and what orders it: barriers of the block, and __syncwarp of its warp. -1: none runs.
struct Clock {
  int thread;
  uint32_t block, barrier, warp_barrier;
};
Clock now();

}  // namespace host
}  // namespace samrt

// The order in which threads run.
extern "C" __attribute__((visibility("default"))) void samrt_host_set_seed(uint64_t seed);

inline void __syncthreads(samrt::host::Site site = samrt::host::here()) { samrt::host::meet_block(site); }

inline void __syncwarp(unsigned mask = samrt::kFullWarp, samrt::host::Site site = samrt::host::here()) {
  samrt::host::meet_warp(samrt::host::Kind::kSyncWarp, mask, nullptr, site);
}
