// The host's way to a kernel. A header of its own, as it runs in the tests' host build too, unlike device.cuh.
#pragma once

#include "device.cuh"

namespace samrt {

// Launch `kernel`, which has no shared memory but dynamic_shared(); returns what CUDA says of this launch.
template <typename... Parameters, typename... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                   Arguments... arguments) {
  if (shared_bytes > 48 * 1024) {
    // All that the device has, not shared_bytes: another thread may be launching the same kernel with more.
    int device = 0, most = 0;
    cudaError_t status = cudaGetDevice(&device);
    if (status == cudaSuccess) status = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (status == cudaSuccess) {
      status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
    }
    if (status != cudaSuccess) return status;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  // cudaGetLastError after <<<>>> would also report what earlier calls were refused for.
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

}  // namespace samrt
