#include "copies.hpp"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#include "races.hpp"

#ifdef SAMRT_HOST_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace samrt::host {
namespace {

struct Copy {
  unsigned char* to;
  const void* from;
  bool valid;
  Site site;
};

// A thread's copies under way, the oldest first: those of each group that was committed, then `open` that were not.
struct Queue {
  std::deque<Copy> copies;
  std::deque<size_t> groups;
  size_t open = 0;
};

std::vector<Queue> queues;  // by thread
unsigned char* shared = nullptr;
size_t shared_size = 0;
unsigned char before = 0xff;  // in every byte of shared memory when a block begins
std::vector<bool> in_flight;  // per 16 bytes of shared memory: a copy is under way to it

// Whether AddressSanitizer lets the kernel touch 16 bytes.
void set_poisoned([[maybe_unused]] void* address, [[maybe_unused]] bool poisoned) {
#ifdef SAMRT_HOST_ASAN
  (poisoned ? __asan_poison_memory_region : __asan_unpoison_memory_region)(address, 16);
#endif
}

// The copy happens now.
void complete(const Copy& copy) {
  const auto offset = static_cast<size_t>(copy.to - shared);
  in_flight[offset / 16] = false;
  set_poisoned(copy.to, false);
  note_copy_ends(copy.to, 16);
  if (copy.valid) {
    note_read(copy.from, 16);
    memcpy(copy.to, copy.from, 16);
  } else {
    memset(copy.to, 0, 16);
  }
}

}  // namespace

void allocate_shared(size_t bytes, unsigned threads) {
  queues.assign(threads, Queue{});
  shared_size = bytes;
  in_flight.assign((bytes + 15) / 16, false);
  if (!bytes) return;
  void* memory = nullptr;
  if (posix_memalign(&memory, 128, bytes) != 0) abort();
  shared = static_cast<unsigned char*>(memory);
  memset(shared, before, bytes);
  forget_accesses(shared, bytes);
}

void free_shared() {
  free(shared);
  shared = nullptr;
}

unsigned char* shared_memory() {
  if (!shared) fail("dynamic_shared(), but the launch asked for no shared memory");
  return shared;
}

void check_shared_row(const void* row, const char* what, Site site, unsigned lane) {
  const auto offset = reinterpret_cast<uintptr_t>(row) - reinterpret_cast<uintptr_t>(shared);
  if (!shared || offset >= shared_size || shared_size - offset < 16) {
    fail_lane(lane, "%s at %s:%d: 16 bytes from byte %td on are not within the %zu bytes of shared memory", what,
              site.file, site.line, static_cast<ptrdiff_t>(offset), shared_size);
  }
  if (offset % 16) {
    fail_lane(lane, "%s at %s:%d: byte %zu of shared memory is not aligned to 16", what, site.file, site.line, offset);
  }
  if (in_flight[offset / 16]) {
    fail_lane(lane, "%s at %s:%d: a copy to byte %zu of shared memory is under way", what, site.file, site.line,
              offset);
  }
}

void begin_copy(void* to, const void* from, bool valid, Site site) {
  Queue& mine = queues[now().thread];
  check_shared_row(to, "cp.async", site, now().thread % 32);
  if (reinterpret_cast<uintptr_t>(from) % 16) {
    fail("cp.async at %s:%d: the global address %p is not aligned to 16", site.file, site.line, from);
  }
  if (valid) {
    note_read(from, 16);
    // Read in vain, by the function that the sanitizer watches, so that an address that is none is seen here.
    static void* (*volatile watched)(void*, const void*, size_t) = memcpy;
    unsigned char readable[16];
    watched(readable, from, 16);
  }
  note_copy_begins(to, 16);
  memset(to, 0xff, 16);
  set_poisoned(to, true);
  in_flight[static_cast<size_t>(static_cast<unsigned char*>(to) - shared) / 16] = true;
  mine.copies.push_back({static_cast<unsigned char*>(to), from, valid, site});
  ++mine.open;
}

void commit_copies() {
  Queue& mine = queues[now().thread];
  mine.groups.push_back(mine.open);
  mine.open = 0;
}

void wait_for_copies(size_t pending) {
  Queue& mine = queues[now().thread];
  while (mine.groups.size() > pending) {
    for (size_t i = 0; i < mine.groups.front(); ++i) {
      complete(mine.copies.front());
      mine.copies.pop_front();
    }
    mine.groups.pop_front();
  }
}

void expect_copied() {
  const std::deque<Copy>& left = queues[now().thread].copies;
  if (left.empty()) return;
  const Site site = left.front().site;
  fail("the kernel ended before the copy of %s:%d was committed and waited for", site.file, site.line);
}

}  // namespace samrt::host

extern "C" void samrt_host_set_shared_before(int byte) { samrt::host::before = static_cast<unsigned char>(byte); }
