// Two threads that touch the same bytes, one of them writing, with no barrier between: found wherever it happens,
// whatever the order of the threads was.
//
// g++ -fsanitize=thread puts a call before each access of memory. Here those calls are our own (races.cpp), not the
// sanitizer's library, which knows nothing of blocks and warps. Only compiled with SAMRT_HOST_RACES.
#pragma once

#include <cstddef>

namespace samrt::host {

#ifdef SAMRT_HOST_RACES
void note_read(const void* address, size_t bytes);
void note_write(const void* address, size_t bytes);
// From its beginning to its end nobody may touch what an asynchronous copy writes.
void note_copy_begins(const void* address, size_t bytes);
void note_copy_ends(const void* address, size_t bytes);
// What was seen so far has no bearing on what comes: a new launch, or memory that is used anew.
void forget_accesses();
void forget_accesses(const void* address, size_t bytes);
#else
inline void note_read(const void*, size_t) {}
inline void note_write(const void*, size_t) {}
inline void note_copy_begins(const void*, size_t) {}
inline void note_copy_ends(const void*, size_t) {}
inline void forget_accesses() {}
inline void forget_accesses(const void*, size_t) {}
#endif

// Memory behind the race detector's back.
template <typename T>
__attribute__((no_sanitize("thread"))) T peek(const T* address) {
  return *address;
}
template <typename T>
__attribute__((no_sanitize("thread"))) T exchange(T* address, T value) {
  const T old = *address;
  *address = value;
  return old;
}

}  // namespace samrt::host
