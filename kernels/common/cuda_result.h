// What the C interface says of a CUDA error.
#pragma once

#include "device.cuh"
#include "error.h"

namespace samrt {

// SAMRT_KERNELS_OK for success; `what` is the function that CUDA was called for.
inline int cuda_result(const char* what, cudaError_t status) {
  if (status == cudaSuccess) return SAMRT_KERNELS_OK;
  if (status == cudaErrorNoKernelImageForDevice) {
    return fail(SAMRT_KERNELS_UNSUPPORTED,
                "%s: this library was compiled for the architectures %s, which do not run on this device: compile "
                "the kernels again on this machine",
                what, samrt_kernels_architectures());
  }
  if (status == cudaErrorInsufficientDriver) {
    return fail(SAMRT_KERNELS_UNSUPPORTED,
                "%s: no NVIDIA driver was found, or it is older than the CUDA version of this library: install a newer "
                "driver",
                what);
  }
  return fail(SAMRT_KERNELS_CUDA, "%s: CUDA: %s", what, cudaGetErrorString(status));
}

}  // namespace samrt
