// Asynchronous copies: what has come after a wait, and what has not.
#include <cmath>

#include "check_shim.hpp"

namespace {

using namespace samrt;

void zeros_kernel(const unsigned* from, unsigned* out) {
  auto shared = reinterpret_cast<unsigned*>(dynamic_shared());
  out[0] = shared[0];
  copy_async_16(shared, from, true);
  copy_async_16(shared + 4, from, false);
  copy_async_commit();
  copy_async_wait<0>();
  memcpy(out + 1, shared, 32);
}

void copies() {
  alignas(16) const unsigned from[4] = {1, 2, 3, 4};
  unsigned out[9];
  run_block(zeros_kernel, 1, 48, from, out);
  EXPECT(out[0] == ~0u);  // shared memory starts as NaN
  for (unsigned i = 0; i < 4; ++i) EXPECT(out[1 + i] == i + 1 && out[5 + i] == 0);
  samrt_host_set_shared_before(0x7b);
  run_block(zeros_kernel, 1, 48, from, out);
  EXPECT(out[0] == 0x7b7b7b7bu);
}

// Where nothing is valid the global address is not read.
void invalid_kernel(const unsigned* from) {
  copy_async_16(dynamic_shared(), from, false);
  copy_async_commit();
  copy_async_wait<0>();
}

void invalid_copy() { run_block(invalid_kernel, 1, 16, nullptr); }

// Of three groups, the second one empty, the first `Waited` have come; then read of group `read`.
template <int Pending>
void groups_kernel(const unsigned* from, unsigned* out, int read) {
  auto shared = reinterpret_cast<unsigned*>(dynamic_shared());
  copy_async_16(shared, from, true);
  copy_async_commit();
  copy_async_commit();
  copy_async_16(shared + 4, from + 4, true);
  copy_async_commit();
  copy_async_wait<Pending>();
  out[0] = shared[4 * read];
  copy_async_wait<0>();
}

template <int Pending>
void groups(int read, unsigned expected) {
  alignas(16) const unsigned from[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  unsigned out = 0;
  run_block(groups_kernel<Pending>, 1, 32, from, &out, read);
  EXPECT(out == expected);
}

void waited_groups() {
  groups<1>(0, 1);
  groups<2>(0, 1);
  groups<0>(0, 1);
  groups<0>(1, 5);
}

// These are stopped.
void first_group_too_early() { groups<3>(0, 1); }
void last_group_too_early() { groups<1>(1, 5); }

void ldmatrix_too_early_kernel(const unsigned* from) {
  copy_async_16(dynamic_shared() + 16 * threadIdx.x, from, true);
  copy_async_commit();
  uint32_t registers[4];
  load_matrices(registers, dynamic_shared() + 16 * threadIdx.x);
  copy_async_wait<0>();
}

void two_copies_to_one_place_kernel(const unsigned* from) {
  copy_async_16(dynamic_shared(), from, true);
  copy_async_commit();
  copy_async_16(dynamic_shared(), from, true);
  copy_async_commit();
  copy_async_wait<0>();
}

void never_waited_kernel(const unsigned* from) {
  copy_async_16(dynamic_shared(), from, true);
  copy_async_commit();
  copy_async_wait<1>();
}

void never_committed_kernel(const unsigned* from) {
  copy_async_16(dynamic_shared(), from, true);
  copy_async_wait<0>();
}

void misaligned_destination_kernel(const unsigned* from) { copy_async_16(dynamic_shared() + 8, from, true); }
void misaligned_source_kernel(const unsigned* from) { copy_async_16(dynamic_shared(), from + 1, true); }
void past_the_end_kernel(const unsigned* from) { copy_async_16(dynamic_shared() + 64, from, true); }
void past_the_source_kernel(const unsigned* from) {
  copy_async_16(dynamic_shared(), from + 8, true);
  copy_async_commit();
  copy_async_wait<0>();
}

template <void (*kernel)(const unsigned*), unsigned Threads, size_t Bytes = 64>
void stopped() {
  unsigned* from = nullptr;  // two pieces of 16 bytes
  EXPECT(cudaMalloc(&from, 32) == cudaSuccess);
  run_block(kernel, Threads, Bytes, from);
  cudaFree(from);
}

}  // namespace

const std::vector<Check> kCopyChecks = {
    {"copies", copies},
    {"invalid_copy", invalid_copy},
    {"waited_groups", waited_groups},
    {"first_group_too_early", first_group_too_early},
    {"last_group_too_early", last_group_too_early},
    {"ldmatrix_too_early", stopped<ldmatrix_too_early_kernel, 32, 512>},
    {"two_copies_to_one_place", stopped<two_copies_to_one_place_kernel, 1>},
    {"never_waited", stopped<never_waited_kernel, 1>},
    {"never_committed", stopped<never_committed_kernel, 1>},
    {"copy_to_misaligned", stopped<misaligned_destination_kernel, 1>},
    {"copy_from_misaligned", stopped<misaligned_source_kernel, 1>},
    {"copy_past_the_end", stopped<past_the_end_kernel, 1>},
    {"copy_past_the_source", stopped<past_the_source_kernel, 1>},
};
