// A stack of its own that code can leave and come back to.
#pragma once

#include <cstddef>

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace samrt::host {

class Fiber {
 public:
  // The thread's own stack, that of whoever makes this.
  Fiber() = default;
  // A new stack, whose pages exist once they are touched. `entry` must not return.
  explicit Fiber(void (*entry)());
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Leave the fiber that runs, which is this one, for another.
  void switch_to(Fiber& other);
  // What a new fiber calls first.
  static void arrived();

  // Does any fiber's stack hold this address?
  static bool on_stack(const void* address);

 private:
#ifdef __x86_64__
  void* saved_ = nullptr;  // its stack pointer while it does not run
#else
  ucontext_t saved_;  // slow: it asks the kernel for the signal mask at every switch
#endif
  const void* bottom_ = nullptr;
  size_t size_ = 0;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
};

}  // namespace samrt::host
