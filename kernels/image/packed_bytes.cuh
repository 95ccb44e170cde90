// Four bytes in one register: one instruction each on the GPU, the same in plain C++ elsewhere.
#pragma once

#include "../common/device.cuh"

#ifdef SAMRT_ON_HOST
#include <algorithm>
#endif

namespace samrt {

#ifdef SAMRT_ON_HOST
// CUDA has them without a namespace.
using std::max;
using std::min;
#endif

// sum + a0*b0 + a1*b1 + a2*b2 + a3*b3 of unsigned bytes.
__device__ inline uint32_t dot_bytes(uint32_t a, uint32_t b, uint32_t sum) {
#ifdef __CUDA_ARCH__
  return __dp4a(a, b, sum);
#else
  for (int shift = 0; shift < 32; shift += 8) sum += (a >> shift & 0xff) * (b >> shift & 0xff);
  return sum;
#endif
}

// Byte i of the result is byte selector>>4*i&7 of low (0 to 3) and high (4 to 7).
__device__ inline uint32_t pick_bytes(uint32_t low, uint32_t high, uint32_t selector) {
#ifdef __CUDA_ARCH__
  return __byte_perm(low, high, selector);
#else
  const uint64_t bytes = uint64_t{high} << 32 | low;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) result |= static_cast<uint32_t>(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  return result;
#endif
}

}  // namespace samrt
