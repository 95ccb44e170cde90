// The 16-bit number formats: two of them in one register, and conversion from and to float32.
#pragma once

#include "device.cuh"

namespace samrt {

template <typename T>
struct Element;

template <>
struct Element<__half> {
  // Rounded to nearest even; `low` in the lower half of the register.
  __device__ static uint32_t pack(float low, float high) {
    __half2 pair = __floats2half2_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
  }
  __device__ static float to_float(__half value) { return __half2float(value); }
  __device__ static __half from_float(float value) { return __float2half_rn(value); }
};

template <>
struct Element<__nv_bfloat16> {
  __device__ static uint32_t pack(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
  }
  __device__ static float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
  __device__ static __nv_bfloat16 from_float(float value) { return __float2bfloat16_rn(value); }
};

}  // namespace samrt
