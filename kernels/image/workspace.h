// A caller's workspace, cut into arrays.
#pragma once

#include <cstddef>
#include <cstdint>

namespace samrt {

inline int divided_up(int a, int b) { return (a + b - 1) / b; }

// Each array is aligned to 16 bytes. Without memory it only counts.
class Workspace {
 public:
  explicit Workspace(void* begin) : begin_(static_cast<unsigned char*>(begin)) {}

  template <typename T>
  T* take(int64_t count) {
    unsigned char* place = begin_ ? begin_ + bytes_ : nullptr;
    bytes_ += (static_cast<size_t>(count) * sizeof(T) + 15) / 16 * 16;
    return reinterpret_cast<T*>(place);
  }
  size_t bytes() const { return bytes_; }

 private:
  unsigned char* begin_;
  size_t bytes_ = 0;
};

}  // namespace samrt
