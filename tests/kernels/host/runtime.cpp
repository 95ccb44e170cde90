#include "runtime.hpp"

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

namespace {

int capability = 90, shared_bytes = 227 * 1024;
std::mutex allowed_mutex;
std::map<const void*, size_t> allowed;  // dynamic shared memory, by kernel

}  // namespace

extern "C" void samrt_host_set_device(int new_capability, int new_shared_bytes) {
  capability = new_capability;
  shared_bytes = new_shared_bytes;
}

size_t samrt::host::shared_limit() { return shared_bytes; }

cudaError_t samrt::host::allow_shared(const void* kernel, int bytes) {
  if (bytes > shared_bytes) return cudaErrorInvalidValue;
  const std::lock_guard lock(allowed_mutex);
  allowed[kernel] = bytes;
  return cudaSuccess;
}

size_t samrt::host::allowed_shared(const void* kernel) {
  const std::lock_guard lock(allowed_mutex);
  const auto found = allowed.find(kernel);
  return found == allowed.end() ? 48 * 1024 : found->second;
}

const char* cudaGetErrorString(cudaError_t) { return "an error of the stand-in for CUDA"; }

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return capability ? cudaSuccess : cudaErrorInsufficientDriver;
}

cudaError_t cudaGetLastError() { return cudaSuccess; }

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return cudaErrorInvalidDevice;
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = capability / 10; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = capability % 10; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = shared_bytes; return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (posix_memalign(memory, 256, bytes) != 0) return cudaErrorMemoryAllocation;
  memset(*memory, 0xff, bytes);  // NaN in every format
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  free(memory);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  memset(memory, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
