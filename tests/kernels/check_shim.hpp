// Small kernels that try what stands in for the GPU (host/). Each check is run by name, in a process of its own, as some
// are there to be stopped.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../../kernels/common/device.cuh"
#include "../../kernels/common/elements.cuh"
#include "../../kernels/common/launch.cuh"

#define EXPECT(condition)                                                                \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      fprintf(stderr, "%s:%d: expected %s\n", __FILE__, __LINE__, #condition);           \
      exit(1);                                                                           \
    }                                                                                    \
  } while (false)

struct Check {
  const char* name;
  void (*run)();
};

extern const std::vector<Check> kLayoutChecks, kCopyChecks, kOrderChecks, kFaultChecks, kRaceChecks;

// How many threads came here before, behind the race detector's back.
inline int arrivals(int* count) {
  const int before = samrt::host::peek(count);
  samrt::host::exchange(count, before + 1);
  return before;
}

// Launch on one block.
template <typename... Parameters, typename... Arguments>
void run_block(void (*kernel)(Parameters...), unsigned threads, size_t shared_bytes, Arguments... arguments) {
  EXPECT(samrt::launch(kernel, dim3(1), dim3(threads), shared_bytes, nullptr, arguments...) == cudaSuccess);
}
