#include "threads.hpp"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <vector>

#include "copies.hpp"
#include "fiber.hpp"
#include "races.hpp"
#include "warp.hpp"

#ifdef SAMRT_HOST_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace samrt::host {

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace {

constexpr unsigned kWarp = 32, kMostThreads = 1024;

enum class State { kRunnable, kAtWarp, kAtBlock, kEnded };

void thread_main();

struct Thread {
  explicit Thread(unsigned number) : number(number) {}

  unsigned number;
  Fiber fiber{thread_main};
  uint3 index{};
  State state = State::kEnded;
  // Of the collective it waits in.
  Kind kind{};
  Site site{};
};

struct Warp {
  uint32_t runnable = 0, waiting = 0;  // lanes
  uint32_t barrier = 0;
  // Of each lane that waits.
  void* operands[kWarp] = {};
  Site sites[kWarp] = {};
};

// xorshift64*
struct Generator {
  uint64_t state = 0x2545f4914f6cdd1du;
  void seed(uint64_t seed) { state = seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du; }
  uint32_t next() {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return static_cast<uint32_t>(state * 0x2545f4914f6cdd1du >> 32);
  }
  uint32_t below(uint32_t bound) { return static_cast<uint32_t>(uint64_t{next()} * bound >> 32); }
};

// One launch at a time, one block at a time, one thread at a time.
std::mutex launching;
Generator generator;
const std::function<void()>* kernel = nullptr;
std::vector<std::unique_ptr<Thread>> threads;
std::vector<Warp> warps;
uint32_t runnable_warps = 0;
unsigned thread_count = 0, living = 0, at_barrier = 0;
unsigned current_warp = 0, lane_offset = 0;
uint32_t leave_warp = 0;  // how often, of 2^32, another warp takes over though this one could go on
Thread* running = nullptr;
Fiber* launcher = nullptr;
uint32_t block_number = 0, barrier_number = 0;

void print_block() { fprintf(stderr, "samrt host: block (%u, %u, %u)", blockIdx.x, blockIdx.y, blockIdx.z); }

[[noreturn]] void fail_thread(const Thread* thread, const char* format, va_list arguments) {
  if (thread) {
    print_block();
    fprintf(stderr, ", thread %u: ", thread->number);
  } else {
    fprintf(stderr, "samrt host: ");
  }
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  fflush(stderr);
  abort();
}

bool same(Site a, Site b) { return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0); }

std::string waits_in(const Thread& thread) {
  if (thread.state == State::kEnded) return "ended";
  char text[512];
  snprintf(text, sizeof text, "in %s at %s:%d", name_of(thread.kind), thread.site.file, thread.site.line);
  return text;
}

[[noreturn]] void report_deadlock() {
  print_block();
  fprintf(stderr, ": deadlock, each thread waits for others that wait elsewhere or have ended:\n");
  for (unsigned first = 0; first < thread_count;) {
    unsigned last = first;
    while (last + 1 < thread_count && waits_in(*threads[last + 1]) == waits_in(*threads[first])) ++last;
    fprintf(stderr, "  threads %u to %u: %s\n", first, last, waits_in(*threads[first]).c_str());
    first = last + 1;
  }
  fflush(stderr);
  abort();
}

void make_runnable(unsigned warp, uint32_t lanes) {
  warps[warp].runnable |= lanes;
  runnable_warps |= 1u << warp;
}

void stop(Thread& thread, State state) {
  thread.state = state;
  Warp& warp = warps[thread.number / kWarp];
  warp.runnable &= ~(1u << thread.number % kWarp);
  if (!warp.runnable) runnable_warps &= ~(1u << thread.number / kWarp);
}

uint32_t rotate_right(uint32_t bits, unsigned by) { return by ? bits >> by | bits << (32 - by) : bits; }

// Who runs next; nullptr if nobody can.
Thread* choose() {
  if (!runnable_warps) return nullptr;
  if (!warps[current_warp].runnable || generator.next() < leave_warp) {
    uint32_t candidates = runnable_warps;
    for (uint32_t skip = generator.below(__builtin_popcount(candidates)); skip; --skip) candidates &= candidates - 1;
    current_warp = __builtin_ctz(candidates);
    lane_offset = generator.below(kWarp);
  }
  const unsigned lane = __builtin_ctz(rotate_right(warps[current_warp].runnable, lane_offset)) + lane_offset;
  return threads[current_warp * kWarp + lane % kWarp].get();
}

void run(Thread* thread) {
  running = thread;
  threadIdx = thread->index;
}

// Let others run, until this thread can and is chosen.
void yield() {
  Thread* me = running;
  Thread* next = choose();
  if (next == me) return;
  if (next) {
    run(next);
    me->fiber.switch_to(next->fiber);
  } else if (living == 0) {
    running = nullptr;
    me->fiber.switch_to(*launcher);
  } else {
    report_deadlock();
  }
}

void release_barrier() {
  for (unsigned i = 0; i < thread_count; ++i) {
    if (threads[i]->state != State::kAtBlock) continue;
    threads[i]->state = State::kRunnable;
    make_runnable(i / kWarp, 1u << i % kWarp);
  }
  at_barrier = 0;
  ++barrier_number;
}

void end_thread() {
  expect_copied();
  stop(*running, State::kEnded);
  --living;
  if (living && at_barrier == living) release_barrier();
  yield();
}

void thread_main() {
  Fiber::arrived();
  for (;;) {
    (*kernel)();
    end_thread();
  }
}

void run_block(uint3 index, dim3 size, size_t shared_bytes, Fiber& main) {
  blockIdx = index;
  ++block_number;
  ++barrier_number;
  allocate_shared(shared_bytes, thread_count);
  warps.assign((thread_count + kWarp - 1) / kWarp, Warp{});
  runnable_warps = 0;
  for (unsigned i = 0; i < thread_count; ++i) {
    threads[i]->index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
    threads[i]->state = State::kRunnable;
    make_runnable(i / kWarp, 1u << i % kWarp);
  }
  living = thread_count;
  at_barrier = 0;
  constexpr uint32_t kLeave[] = {0, 1u << 27, 1u << 30};
  leave_warp = kLeave[generator.below(3)];
  current_warp = generator.below(static_cast<uint32_t>(warps.size()));
  lane_offset = generator.below(kWarp);
  Thread* first = choose();
  run(first);
  main.switch_to(first->fiber);
  free_shared();
}

bool valid_launch(dim3 grid, dim3 block) {
  const uint64_t count = uint64_t{block.x} * block.y * block.z;
  return count >= 1 && block.x <= kMostThreads && block.y <= kMostThreads && block.z <= 64 && count <= kMostThreads &&
         grid.x >= 1 && grid.y >= 1 && grid.z >= 1 && grid.x <= INT32_MAX && grid.y <= 65535 && grid.z <= 65535;
}

// Are all lanes of the warp, which wait, in a collective of this kind?
bool all_wait_alike(unsigned warp, Kind kind) {
  const auto first = threads.begin() + warp * kWarp;
  return std::all_of(first, first + kWarp, [kind](const auto& other) { return other->kind == kind; });
}

// The instructions called .aligned want one and the same of them in all lanes.
void check_aligned(const Warp& warp, Kind kind, Site site) {
  if (kind != Kind::kLoadMatrices && kind != Kind::kLoadMatricesTransposed && kind != Kind::kMultiplyAddHalf &&
      kind != Kind::kMultiplyAddBfloat16) {
    return;
  }
  for (unsigned i = 0; i < kWarp; ++i) {
    const Site other = warp.sites[i];
    if (!same(other, site)) {
      fail("%s at %s:%d, but lane %u of the warp is in that of %s:%d", name_of(kind), site.file, site.line, i,
           other.file, other.line);
    }
  }
}

#ifdef SAMRT_HOST_ASAN
void place_of_report(const char*) {
  if (!running) return;
  print_block();
  fprintf(stderr, ", thread %u: AddressSanitizer stopped here\n", running->number);
}
#endif

}  // namespace

cudaError_t run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body) {
  if (!valid_launch(grid, block)) return cudaErrorInvalidConfiguration;
  if (shared_bytes > shared_limit()) return cudaErrorInvalidValue;
  const std::lock_guard<std::mutex> lock(launching);
#ifdef SAMRT_HOST_ASAN
  __asan_set_error_report_callback(place_of_report);
#endif
  gridDim = grid;
  blockDim = block;
  thread_count = block.x * block.y * block.z;
  while (threads.size() < thread_count) threads.push_back(std::make_unique<Thread>(threads.size()));
  kernel = &body;
  Fiber main;
  launcher = &main;
  forget_accesses();
  std::vector<uint64_t> order(uint64_t{grid.x} * grid.y * grid.z);
  std::iota(order.begin(), order.end(), uint64_t{0});
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[generator.next() % i]);
  for (const uint64_t i : order) {
    const uint3 index{static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                      static_cast<unsigned>(i / grid.x / grid.y)};
    run_block(index, block, shared_bytes, main);
  }
  kernel = nullptr;
  return cudaSuccess;
}

void meet_warp(Kind kind, uint32_t mask, void* operands, Site site) {
  Thread& me = *running;
  const unsigned number = me.number / kWarp, lane = me.number % kWarp;
  Warp& warp = warps[number];
  if (mask != kFullWarp) fail("%s at %s:%d: mask %08x is not the whole warp's", name_of(kind), site.file, site.line, mask);
  me.kind = kind;
  me.site = warp.sites[lane] = site;
  warp.operands[lane] = operands;
  stop(me, State::kAtWarp);
  warp.waiting |= 1u << lane;
  if (warp.waiting != kFullWarp || !all_wait_alike(number, kind)) return yield();

  check_aligned(warp, kind, site);
  execute(kind, warp.operands, warp.sites);
  if (kind == Kind::kSyncWarp) ++warp.barrier;
  warp.waiting = 0;
  make_runnable(number, kFullWarp);
  for (unsigned i = 0; i < kWarp; ++i) threads[number * kWarp + i]->state = State::kRunnable;
}

void meet_block(Site site) {
  Thread& me = *running;
  me.kind = Kind::kSyncThreads;
  me.site = site;
  for (unsigned i = 0; at_barrier && i < thread_count; ++i) {
    const Thread& other = *threads[i];
    if (other.state == State::kAtBlock && !same(other.site, site)) {
      fail("__syncthreads at %s:%d, but thread %u waits in that of %s:%d", site.file, site.line, other.number,
           other.site.file, other.site.line);
    }
    if (other.state == State::kAtBlock) break;  // those who wait already wait in the same one
  }
  stop(me, State::kAtBlock);
  if (++at_barrier == living) release_barrier();
  yield();
}

Clock now() {
  if (!running) return {-1, 0, 0, 0};
  return {static_cast<int>(running->number), block_number, barrier_number, warps[running->number / kWarp].barrier};
}

void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fail_thread(running, format, arguments);
}

void fail_lane(unsigned lane, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fail_thread(threads[running->number / kWarp * kWarp + lane].get(), format, arguments);
}

}  // namespace samrt::host

extern "C" void samrt_host_set_seed(uint64_t seed) {
  const std::lock_guard<std::mutex> lock(samrt::host::launching);
  samrt::host::generator.seed(seed);
}
