// Dynamic shared memory of the block that runs, and the asynchronous copies into it.
#pragma once

#include <cstddef>

#include "threads.hpp"

namespace samrt::host {

// For a block that begins, of so many threads; and when it has ended.
void allocate_shared(size_t bytes, unsigned threads);
void free_shared();

// As many bytes as were asked for; at first NaN in every format, or what samrt_host_set_shared_before() says.
unsigned char* shared_memory();

// cp.async, as late as it may happen: at the wait that its group is complete after.
void begin_copy(void* shared, const void* global, bool valid, Site site);
void commit_copies();
void wait_for_copies(size_t pending);
// End the process unless the thread that runs has waited for all its copies.
void expect_copied();

// End the process unless 16 bytes of shared memory start here, aligned to 16 and no copy under way to them.
void check_shared_row(const void* row, const char* what, Site site, unsigned lane);

}  // namespace samrt::host

// On a GPU, a block finds in shared memory what others left there.
extern "C" __attribute__((visibility("default"))) void samrt_host_set_shared_before(int byte);
