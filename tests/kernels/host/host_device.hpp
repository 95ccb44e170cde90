// What kernels/common/device.cuh gives the kernels, executed on the CPU: one block at a time, every thread a fiber.
//
// It finds what a GPU would leave to chance: a copy that is read before it was waited for, a collective that not all
// lanes of a warp reach, rows that are not aligned, memory past the end (AddressSanitizer), and in a build with
// SAMRT_HOST_RACES two threads that touch the same bytes without a barrier between them. It says nothing about speed.
// Layouts: PTX ISA, sections on ldmatrix, mma.m16n8k16 and cp.async. Everything that is wrong ends the process with a
// line that names the block, the thread and the place in the source.
//
// Not needed: a CUDA toolkit.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "copies.hpp"
#include "elements.hpp"
#include "races.hpp"
#include "runtime.hpp"
#include "threads.hpp"
#include "warp.hpp"

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

using samrt::host::blockDim;
using samrt::host::blockIdx;
using samrt::host::gridDim;
using samrt::host::threadIdx;

namespace samrt {

inline unsigned char* dynamic_shared() { return host::shared_memory(); }

inline void copy_async_16(void* shared, const void* global, bool valid, host::Site site = host::here()) {
  host::begin_copy(shared, global, valid, site);
}

inline void copy_async_commit() { host::commit_copies(); }

template <int Pending>
void copy_async_wait() {
  host::wait_for_copies(Pending);
}

inline void load_matrices(uint32_t (&registers)[4], const void* row, host::Site site = host::here()) {
  host::LoadMatrices operands{row, registers};
  host::note_read(row, 16);
  host::meet_warp(host::Kind::kLoadMatrices, kFullWarp, &operands, site);
}

inline void load_matrices_transposed(uint32_t (&registers)[4], const void* row, host::Site site = host::here()) {
  host::LoadMatrices operands{row, registers};
  host::note_read(row, 16);
  host::meet_warp(host::Kind::kLoadMatricesTransposed, kFullWarp, &operands, site);
}

template <typename T>
void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, host::Site site = host::here()) {
  host::MultiplyAdd operands{c, a, {b0, b1}};
  host::meet_warp(host::kMultiplyAdd<T>, kFullWarp, &operands, site);
}

template <typename Integer>
void make_opaque(Integer&) {}

inline float exp2_approximate(float x) {
  const float result = std::exp2(x);
  return result < 0x1p-126f ? 0.f : result;  // .ftz
}

}  // namespace samrt

// Only this attribute, and only upwards of what every kernel may have.
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

template <typename... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute, int bytes) {
  return samrt::host::allow_shared(reinterpret_cast<const void*>(kernel), bytes);
}

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

// Runs the whole grid before it returns.
template <typename... Parameters>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Parameters... arguments) {
  if (config->dynamicSmemBytes > samrt::host::allowed_shared(reinterpret_cast<const void*>(kernel))) {
    return cudaErrorInvalidValue;
  }
  return samrt::host::run_grid(config->gridDim, config->blockDim, config->dynamicSmemBytes,
                               [&] { kernel(arguments...); });
}
