// What the kernels need of the GPU beyond plain C++: tensor cores, asynchronous copies, shared memory.
//
// Every PTX instruction is here and nowhere else. tests/kernels replaces this file by one that executes the same
// functions on the CPU, with the fragment layouts that the PTX ISA documents; so a kernel may use nothing else of the
// GPU than this, threadIdx and its kin, __syncthreads, and of a whole warp __syncwarp, __shfl_up_sync, __shfl_xor_sync,
// __any_sync and __all_sync.
#pragma once

#ifdef SAMRT_ON_HOST
#include "host_device.hpp"
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace samrt {

constexpr unsigned kFullWarp = 0xffffffffu;

// Shared memory of the size that the launch asked for, aligned to 128 bytes.
__device__ inline unsigned char* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char samrt_shared[];
  return samrt_shared;
}

__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Begin to copy 16 bytes, both addresses aligned to 16; where not `valid`, 16 bytes of zero instead, and `global` is
// not read. Complete after the group it is committed to was waited for, and for other threads after a barrier.
__device__ inline void copy_async_16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}

// Close the group of this thread's copies since the last call; a group may be empty.
__device__ inline void copy_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }

// Wait until at most `Pending` of this thread's latest groups are under way.
template <int Pending>
__device__ inline void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(Pending) : "memory");
}

// Four 8x8 matrices of 16-bit elements. Lane i names row i%8 of matrix i/8, 16 bytes of shared memory. Register m then
// holds of matrix m: row lane/4, columns 2*(lane%4) and +1.
__device__ inline void load_matrices(uint32_t (&registers)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared_address(row))
               : "memory");
}

// The same, transposed: register m holds of matrix m rows 2*(lane%4) and +1 of column lane/4.
__device__ inline void load_matrices_transposed(uint32_t (&registers)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared_address(row))
               : "memory");
}

// c += a * b with a [16, 16] row major, b [16, 8] column major, c [16, 8] in float32 (mma.m16n8k16). With g = lane/4 and
// t = lane%4, as pairs of neighbours: a holds (row g, column 2t), (g+8, 2t), (g, 2t+8), (g+8, 2t+8); b holds (row 2t,
// column g), (2t+8, g), pairs along the rows; c holds (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1).
template <typename T>
__device__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
__device__ inline void multiply_add<__half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ inline void multiply_add<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Compute `value` here, once: the compiler would rather make it anew from threadIdx wherever it is used.
template <typename Integer>
__device__ void make_opaque(Integer& value) { asm volatile("" : "+r"(value)); }

// 2 to the power x, to about two units in the last place; 0 for -infinity.
__device__ inline float exp2_approximate(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(result) : "f"(x));
  return result;
}

}  // namespace samrt

#endif  // SAMRT_ON_HOST
