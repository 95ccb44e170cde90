// Host side of the attention: checks, selection of the tile shape, table of instantiations.
#include "../samrt_kernels.h"

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "../common/cuda_result.h"
#include "attention_launch.h"

namespace samrt {
namespace {

struct Instance {
  int format, head_dim, tile;
  bool rel_pos;
  cudaError_t (*launch)(const AttentionParameters&, cudaStream_t);
};

constexpr float kLog2E = 1.4426950408889634f;

// Much larger than what fits into shared memory. The limit keeps sizes within 32 bits.
constexpr int kLargestWindow = 4096;

template <typename T>
constexpr int kFormat = std::is_same_v<T, __half> ? SAMRT_KERNELS_FP16 : SAMRT_KERNELS_BF16;

constexpr Instance kInstances[] = {
#define INSTANCE(T, head_dim, tile, rel_pos) \
  {kFormat<T>, head_dim, tile, rel_pos, launch_attention<T, head_dim, tile, rel_pos>},
#include "instances.def"
#undef INSTANCE
};

const Instance* find_instance(int format, int head_dim, int tile, bool rel_pos) {
  for (const Instance& instance : kInstances) {
    if (instance.format == format && instance.head_dim == head_dim && instance.tile == tile &&
        instance.rel_pos == rel_pos) {
      return &instance;
    }
  }
  return nullptr;
}

int check_sizes(const samrt_attention_args& args) {
  if (args.format != SAMRT_KERNELS_FP16 && args.format != SAMRT_KERNELS_BF16) {
    return fail(SAMRT_KERNELS_INVALID, "attention: unknown number format %d; 0 is fp16, 1 is bf16", args.format);
  }
  if (args.head_dim != 64 && args.head_dim != 80) {
    return fail(SAMRT_KERNELS_INVALID, "attention: head_dim must be 64 or 80, not %d", args.head_dim);
  }
  if (args.batch < 0 || args.grid_h < 1 || args.grid_w < 1 || args.heads < 1 || args.window < 0) {
    return fail(SAMRT_KERNELS_INVALID,
                "attention: batch %d, grid %d x %d, %d heads, window %d: batch and window must be at least 0, all "
                "others at least 1",
                args.batch, args.grid_h, args.grid_w, args.heads, args.window);
  }
  if (args.tile < -1 || args.tile >= kTileShapeCount) {
    return fail(SAMRT_KERNELS_INVALID, "attention: tile is %d; it must be 0 to %d, or -1 for the default tile shape",
                args.tile, kTileShapeCount - 1);
  }
  if (args.window > kLargestWindow) {
    return fail(SAMRT_KERNELS_INVALID, "attention: window must be at most %d tokens, not %d",
                kLargestWindow, args.window);
  }
  // Offsets within an image have 32 bits. The product of all sizes could exceed 64 bits.
  const int64_t tokens = int64_t{args.grid_h} * args.grid_w, token = int64_t{3} * args.heads * args.head_dim;
  if (tokens > INT32_MAX / token) {
    return fail(SAMRT_KERNELS_INVALID, "attention: a grid of %d x %d with %d heads of %d has 2^31 elements or more; use a smaller image",
                args.grid_h, args.grid_w, args.heads, args.head_dim);
  }
  return SAMRT_KERNELS_OK;
}

int check_pointers(const samrt_attention_args& args) {
  if (!args.qkv || !args.out) return fail(SAMRT_KERNELS_INVALID, "attention: qkv or out is NULL");
  if (!args.rel_pos_h != !args.rel_pos_w) {
    return fail(SAMRT_KERNELS_INVALID, "attention: one of rel_pos_h and rel_pos_w is NULL; pass both or neither");
  }
  const bool padded = args.window && (args.grid_h % args.window || args.grid_w % args.window);
  if (padded && !args.qkv_bias) {
    return fail(SAMRT_KERNELS_INVALID,
                "attention: windows of %d do not divide a grid of %d x %d evenly, so qkv_bias is required", args.window,
                args.grid_h, args.grid_w);
  }
  for (const void* pointer : {args.qkv, args.qkv_bias, args.rel_pos_h, args.rel_pos_w, (const void*)args.out}) {
    if (reinterpret_cast<uintptr_t>(pointer) % 16) {
      return fail(SAMRT_KERNELS_INVALID, "attention: %p is not aligned to 16 bytes", pointer);
    }
  }
  return SAMRT_KERNELS_OK;
}

int ceil_divide(int a, int b) { return a / b + (a % b != 0); }

AttentionParameters derive(const samrt_attention_args& args) {
  const int across = args.window ? ceil_divide(args.grid_w, args.window) : 1;
  const int down = args.window ? ceil_divide(args.grid_h, args.window) : 1;
  const int side_h = args.window ? args.window : args.grid_h, side_w = args.window ? args.window : args.grid_w;
  const float root = std::sqrt(static_cast<float>(args.head_dim));
  return {args.qkv,
          // If no token is padded, it is never read, but addresses are computed from it.
          args.qkv_bias ? args.qkv_bias : args.qkv,
          args.rel_pos_h,
          args.rel_pos_w,
          args.out,
          args.batch,
          args.grid_h,
          args.grid_w,
          args.heads,
          args.heads * args.head_dim,
          side_h,
          side_w,
          ceil_divide(side_h, 16),
          across * down,
          across,
          kLog2E / root,
          root,
          // Weights of up to 2^8 in place of 1. fp16 has no values whose sum with such weights overflows float32.
          args.format == SAMRT_KERNELS_FP16 ? 8 / kLog2E * root : 0.f};
}

struct Device {
  int architecture;  // 87 for compute capability 8.7
  int shared_bytes;  // the most that a block may have
  bool assumed;
};

// The architecture with the least shared memory of those that the kernels are compiled for (8.6; 8.9 and 12.0 have as
// much). What fits there fits on all. CUDA Programming Guide, "Technical Specifications per Compute Capability".
constexpr Device kSmallestDevice{86, 99 * 1024, true};

cudaError_t current_device(Device& device) {
  int index = 0, major = 0, minor = 0;
  cudaError_t status = cudaGetDevice(&index);
  if (status == cudaSuccess) status = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index);
  if (status == cudaSuccess) status = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index);
  if (status == cudaSuccess) {
    status = cudaDeviceGetAttribute(&device.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index);
  }
  device.architecture = 10 * major + minor;
  device.assumed = false;
  return status;
}

// Selects the kernel for these sizes on a device.
int choose_instance(const samrt_attention_args& args, const AttentionParameters& parameters, bool rel_pos,
                    const Device& device, const Instance*& instance) {
  if (int64_t{args.batch} * parameters.windows > 65535 || args.heads > 65535) {
    return fail(SAMRT_KERNELS_INVALID, "attention: %d images of %d windows, %d heads: at most 65535 windows and 65535 heads per call; pass fewer images",
                args.batch, parameters.windows, args.heads);
  }
  const int tile = args.tile >= 0 ? args.tile : choose_tile(device.architecture, parameters.side_h, parameters.side_w,
                                                            args.head_dim, device.shared_bytes);
  const size_t shared_bytes = kTileShapes[tile].shared_bytes(args.head_dim, parameters.side_h);
  if (shared_bytes > static_cast<size_t>(device.shared_bytes)) {
    return fail(SAMRT_KERNELS_UNSUPPORTED,
                "attention: with tile %s, %d rows of tokens need %zu bytes of shared memory, and compute capability "
                "%d.%d%s has %d; %s",
                kTileShapes[tile].name, parameters.side_h, shared_bytes, device.architecture / 10,
                device.architecture % 10, device.assumed ? " (assumed, because no GPU was found)" : "", device.shared_bytes,
                args.tile >= 0 ? "use tile -1 or a smaller image" : "use a smaller image");
  }
  instance = find_instance(args.format, args.head_dim, tile, rel_pos);
  if (instance) return SAMRT_KERNELS_OK;
  return fail(SAMRT_KERNELS_UNSUPPORTED,
              "attention: no kernel was compiled for %s, head dimension %d, tile %s, %s bias; %s",
              args.format == SAMRT_KERNELS_FP16 ? "fp16" : "bf16", args.head_dim, kTileShapes[tile].name,
              rel_pos ? "with" : "without", rel_pos ? "use tile -1" : "pass rel_pos_h and rel_pos_w");
}

int check(const samrt_attention_args& args) {
  if (int code = check_sizes(args)) return code;
  Device device;
  if (current_device(device) != cudaSuccess) {
    cudaGetLastError();  // clears the error; otherwise the next call would report it
    device = kSmallestDevice;
  }
  const Instance* instance = nullptr;
  return choose_instance(args, derive(args), true, device, instance);
}

int attention(const samrt_attention_args& args, cudaStream_t stream) {
  if (int code = check_sizes(args)) return code;
  if (args.batch == 0) return SAMRT_KERNELS_OK;
  if (int code = check_pointers(args)) return code;
  const AttentionParameters parameters = derive(args);
  Device device;
  if (int code = cuda_result("attention", current_device(device))) return code;
  const Instance* instance = nullptr;
  if (int code = choose_instance(args, parameters, args.rel_pos_h != nullptr, device, instance)) return code;
  return cuda_result("attention", instance->launch(parameters, stream));
}

}  // namespace
}  // namespace samrt

extern "C" int samrt_attention(const samrt_attention_args* args, samrt_stream stream) {
  if (!args) return samrt::fail(SAMRT_KERNELS_INVALID, "attention: args is NULL");
  return samrt::attention(*args, static_cast<cudaStream_t>(stream));
}

extern "C" int samrt_attention_check(const samrt_attention_args* args) {
  if (!args) return samrt::fail(SAMRT_KERNELS_INVALID, "attention: args is NULL");
  return samrt::check(*args);
}

extern "C" int32_t samrt_attention_tiles(void) { return samrt::kTileShapeCount; }

extern "C" const char* samrt_attention_tile_name(int32_t tile) {
  return tile >= 0 && tile < samrt::kTileShapeCount ? samrt::kTileShapes[tile].name : nullptr;
}

extern "C" int32_t samrt_attention_has_tile(int32_t format, int32_t head_dim, int32_t tile, int32_t with_bias) {
  return samrt::find_instance(format, head_dim, tile, with_bias != 0) != nullptr;
}

extern "C" size_t samrt_attention_shared_bytes(int32_t head_dim, int32_t tile, int32_t rows) {
  if (tile < 0 || tile >= samrt::kTileShapeCount || head_dim < 1 || rows < 1) return 0;
  return samrt::kTileShapes[tile].shared_bytes(head_dim, rows);
}
