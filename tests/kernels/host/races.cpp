#include "races.hpp"

#ifdef SAMRT_HOST_RACES

#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <unordered_map>

#include "fiber.hpp"
#include "threads.hpp"

namespace samrt::host {
namespace {

enum class Access { kRead, kWrite };

constexpr int kNobody = -1, kSeveralThreads = -2, kSeveralWarps = -3, kSeveralBlocks = -4;

// One or more accesses of one kind to a byte that nothing has ordered since.
struct Record {
  int thread = kNobody;
  int warp = 0;  // where `thread` is kSeveralThreads
  uint32_t block = 0, barrier = 0, warp_barrier = 0;
  const void* code = nullptr;

  int warp_of() const { return thread >= 0 ? thread / 32 : warp; }
};

struct Byte {
  Record write, read;
  bool in_flight = false;
};

constexpr size_t kPage = 4096;
struct Page {
  Byte bytes[kPage];
};
std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
uintptr_t last_number = 0;
Page* last_page = nullptr;

Byte& byte_at(uintptr_t address) {
  const uintptr_t number = address / kPage;
  if (!last_page || number != last_number) {
    std::unique_ptr<Page>& page = pages[number];
    if (!page) page = std::make_unique<Page>();
    last_page = page.get();
    last_number = number;
  }
  return last_page->bytes[address % kPage];
}

// Has something happened since that orders the accesses of `before` and that of now?
bool ordered(const Record& before, const Clock& clock) {
  if (before.thread == kNobody) return true;
  // Nothing orders the blocks of a launch.
  if (before.block != clock.block || before.thread == kSeveralBlocks) return false;
  if (before.barrier != clock.barrier || before.thread == clock.thread) return true;
  return before.thread != kSeveralWarps && before.warp_of() == clock.thread / 32 &&
         before.warp_barrier != clock.warp_barrier;
}

void add(Record& record, const Clock& clock, const void* code) {
  if (record.thread != kNobody && record.block != clock.block) {
    record.thread = kSeveralBlocks;
  } else if (record.thread == kSeveralBlocks) {
    return;
  } else if (record.thread == kNobody || record.barrier != clock.barrier) {
    record.thread = clock.thread;
  } else if (record.thread == kSeveralWarps || record.warp_of() != clock.thread / 32) {
    record.thread = kSeveralWarps;
  } else if (record.warp_barrier != clock.warp_barrier) {
    record.thread = clock.thread;
  } else if (record.thread != clock.thread) {
    record.thread = kSeveralThreads;
  }
  record.warp = clock.thread / 32;
  record.block = clock.block;
  record.barrier = clock.barrier;
  record.warp_barrier = clock.warp_barrier;
  record.code = code;
}

const char* name_of(Access access) {
  return access == Access::kRead ? "a read" : "a write";
}

void describe(char* text, size_t size, const Record& before) {
  switch (before.thread) {
    case kSeveralBlocks: snprintf(text, size, "several blocks"); break;
    case kSeveralWarps: snprintf(text, size, "threads of several warps"); break;
    case kSeveralThreads: snprintf(text, size, "several threads of warp %d", before.warp); break;
    default: snprintf(text, size, "thread %d", before.thread);
  }
}

// For addr2line: the library, and the place in it.
void locate(char* text, size_t size, const void* code) {
  Dl_info info;
  if (code && dladdr(code, &info) && info.dli_fname) {
    const auto offset = reinterpret_cast<uintptr_t>(code) - reinterpret_cast<uintptr_t>(info.dli_fbase);
    snprintf(text, size, "%s 0x%zx", info.dli_fname, static_cast<size_t>(offset));
  } else {
    snprintf(text, size, "a copy or ldmatrix");
  }
}

void check(const Record& before, Access then, Access access, const Clock& clock, const void* address,
           const void* code) {
  if (ordered(before, clock)) return;
  char who[64], here[512], there[512];
  describe(who, sizeof who, before);
  locate(here, sizeof here, code);
  locate(there, sizeof there, before.code);
  fail("race: %s of %p, and %s by %s%s, with no barrier between\n  here: %s\n  there: %s", name_of(access), address,
       name_of(then), who, before.block == clock.block ? "" : " of another block", here, there);
}

void note(const void* start, size_t size, Access access, const void* code) {
  const Clock clock = now();
  if (clock.thread < 0 || Fiber::on_stack(start)) return;
  for (size_t i = 0; i < size; ++i) {
    const void* address = static_cast<const char*>(start) + i;
    Byte& byte = byte_at(reinterpret_cast<uintptr_t>(address));
    if (byte.in_flight) {
      char here[512];
      locate(here, sizeof here, code);
      fail("race: %s of %p, to which an asynchronous copy is under way\n  here: %s", name_of(access), address, here);
    }
    check(byte.write, Access::kWrite, access, clock, address, code);
    if (access == Access::kWrite) check(byte.read, Access::kRead, access, clock, address, code);
    add(access == Access::kRead ? byte.read : byte.write, clock, code);
  }
}

}  // namespace

void note_read(const void* address, size_t bytes) { note(address, bytes, Access::kRead, nullptr); }
void note_write(const void* address, size_t bytes) { note(address, bytes, Access::kWrite, nullptr); }

void note_copy_begins(const void* address, size_t bytes) {
  note_write(address, bytes);
  for (size_t i = 0; i < bytes; ++i) byte_at(reinterpret_cast<uintptr_t>(address) + i).in_flight = true;
}

void note_copy_ends(const void* address, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) byte_at(reinterpret_cast<uintptr_t>(address) + i).in_flight = false;
  note_write(address, bytes);
}

void forget_accesses() {
  pages.clear();
  last_page = nullptr;
}

void forget_accesses(const void* address, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) byte_at(reinterpret_cast<uintptr_t>(address) + i) = Byte{};
}

}  // namespace samrt::host

// What g++ -fsanitize=thread calls.
#define SAMRT_ACCESS(name, access, size) \
  extern "C" void __tsan_##name(void* address) { \
    samrt::host::note(address, size, samrt::host::Access::access, __builtin_return_address(0)); \
  }
#define SAMRT_ACCESSES(size) \
  SAMRT_ACCESS(read##size, kRead, size) \
  SAMRT_ACCESS(write##size, kWrite, size) \
  SAMRT_ACCESS(unaligned_read##size, kRead, size) \
  SAMRT_ACCESS(unaligned_write##size, kWrite, size) \
  SAMRT_ACCESS(volatile_read##size, kRead, size) \
  SAMRT_ACCESS(volatile_write##size, kWrite, size)
SAMRT_ACCESSES(1)
SAMRT_ACCESSES(2)
SAMRT_ACCESSES(4)
SAMRT_ACCESSES(8)
SAMRT_ACCESSES(16)

extern "C" {
void __tsan_read_range(void* address, size_t size) {
  samrt::host::note(address, size, samrt::host::Access::kRead, __builtin_return_address(0));
}
void __tsan_write_range(void* address, size_t size) {
  samrt::host::note(address, size, samrt::host::Access::kWrite, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
}

#endif  // SAMRT_HOST_RACES
