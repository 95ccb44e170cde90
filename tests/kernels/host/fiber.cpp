#include "fiber.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

#ifdef SAMRT_HOST_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef __x86_64__
// samrt_host_switch(where to keep this stack pointer, the stack pointer to take): what the ABI wants preserved lies on
// the stack that is left.
extern "C" void samrt_host_switch(void** from, void* to);
asm(R"(
.text
.hidden samrt_host_switch
.globl samrt_host_switch
.type samrt_host_switch, @function
samrt_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size samrt_host_switch, .-samrt_host_switch
)");
#endif

namespace samrt::host {
namespace {

// A block has at most 1024 threads. Under AddressSanitizer a frame is a few times what it is otherwise.
constexpr size_t kStacks = 1024, kStackBytes = 256 * 1024, kGuardBytes = 4096;

unsigned char* arena = nullptr;
size_t used = 0;
Fiber* left = nullptr;

unsigned char* new_stack() {
  if (!arena) {
    void* memory = mmap(nullptr, kStacks * kStackBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) abort();
    arena = static_cast<unsigned char*>(memory);
  }
  if (used == kStacks) abort();
  unsigned char* stack = arena + used++ * kStackBytes + kGuardBytes;
  if (mprotect(stack, kStackBytes - kGuardBytes, PROT_READ | PROT_WRITE) != 0) abort();
  return stack;
}

}  // namespace

Fiber::Fiber(void (*entry)()) : bottom_(new_stack()), size_(kStackBytes - kGuardBytes) {
#ifdef __x86_64__
  // As if samrt_host_switch had been called by a function that returns to `entry`, which finds the stack as a call
  // would leave it: 8 past a multiple of 16.
  auto top = static_cast<void**>(const_cast<void*>(bottom_)) + size_ / sizeof(void*);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  saved_ = top;
#else
  getcontext(&saved_);
  saved_.uc_stack.ss_sp = const_cast<void*>(bottom_);
  saved_.uc_stack.ss_size = size_;
  makecontext(&saved_, entry, 0);
#endif
}

void Fiber::switch_to(Fiber& other) {
  left = this;
#ifdef SAMRT_HOST_ASAN
  __sanitizer_start_switch_fiber(&fake_stack_, other.bottom_, other.size_);
#endif
#ifdef __x86_64__
  samrt_host_switch(&saved_, other.saved_);
#else
  swapcontext(&saved_, &other.saved_);
#endif
#ifdef SAMRT_HOST_ASAN
  __sanitizer_finish_switch_fiber(fake_stack_, &left->bottom_, &left->size_);
#endif
}

void Fiber::arrived() {
#ifdef SAMRT_HOST_ASAN
  __sanitizer_finish_switch_fiber(nullptr, &left->bottom_, &left->size_);
#endif
}

bool Fiber::on_stack(const void* address) {
  const auto offset = reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(arena);
  return arena && offset < kStacks * kStackBytes;
}

}  // namespace samrt::host
