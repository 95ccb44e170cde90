// Postprocessing's host side: checks, the layout of the workspace, launches.
#include "masks.cuh"

#include <cmath>
#include <cstdint>

#include "../common/cuda_result.h"
#include "../common/launch.cuh"
#include "mask_runs.cuh"
#include "workspace.h"

namespace samrt {
namespace {

int check_sizes(const samrt_masks_args& args) {
  if (args.masks < 0 || args.masks > SAMRT_IMAGE_MAX_MASKS) {
    return fail(SAMRT_KERNELS_INVALID, "masks: %d masks; one call takes 0 to %d", args.masks, SAMRT_IMAGE_MAX_MASKS);
  }
  if (args.height < 1 || args.width < 1 || args.height > SAMRT_IMAGE_MAX_SIDE || args.width > SAMRT_IMAGE_MAX_SIDE ||
      int64_t{args.height} * args.width > INT32_MAX) {
    return fail(SAMRT_KERNELS_INVALID, "masks: the original is %d x %d; sides must be 1 to %d, and pixels fewer than 2^31",
                args.height, args.width, SAMRT_IMAGE_MAX_SIDE);
  }
  if (args.image_size < 1 || args.image_size > SAMRT_IMAGE_MAX_INPUT || args.low_res_size < 1 ||
      args.low_res_size > args.image_size) {
    return fail(SAMRT_KERNELS_INVALID, "masks: image_size is %d and low_res_size is %d; they must be 1 to %d, and 1 to image_size",
                args.image_size, args.low_res_size, SAMRT_IMAGE_MAX_INPUT);
  }
  if (args.input_height < 1 || args.input_width < 1 || args.input_height > args.image_size ||
      args.input_width > args.image_size) {
    return fail(SAMRT_KERNELS_INVALID, "masks: the input is %d x %d; its sides must be 1 to image_size, %d",
                args.input_height, args.input_width, args.image_size);
  }
  if (args.format != SAMRT_KERNELS_FP32 && args.format != SAMRT_KERNELS_FP16) {
    return fail(SAMRT_KERNELS_INVALID, "masks: unknown number format %d; 0 is fp16, 2 is fp32", args.format);
  }
  return SAMRT_KERNELS_OK;
}

int check_rest(const samrt_masks_args& args) {
  if (!args.logits) return fail(SAMRT_KERNELS_INVALID, "masks: logits is NULL");
  if (!args.out && !args.stats) return fail(SAMRT_KERNELS_INVALID, "masks: out and stats are both NULL; pass at least one");
  if (args.runs && !args.stats) {
    return fail(SAMRT_KERNELS_INVALID, "masks: runs need stats, which hold their number; stats is NULL");
  }
  if (args.runs && args.run_capacity < 1) {
    return fail(SAMRT_KERNELS_INVALID, "masks: run_capacity is %d; it must be at least 1", args.run_capacity);
  }
  if (!std::isfinite(args.threshold) || !std::isfinite(args.stability_offset) || args.stability_offset < 0) {
    return fail(SAMRT_KERNELS_INVALID,
                "masks: threshold is %g and stability_offset is %g; both must be finite, and the offset at least 0", args.threshold,
                args.stability_offset);
  }
  if (!args.workspace || reinterpret_cast<uintptr_t>(args.workspace) % 16) {
    return fail(SAMRT_KERNELS_INVALID, "masks: workspace is %p; it must not be NULL, and must be aligned to 16 bytes",
                args.workspace);
  }
  const int element = args.format == SAMRT_KERNELS_FP32 ? 4 : 2;
  if (reinterpret_cast<uintptr_t>(args.logits) % element || reinterpret_cast<uintptr_t>(args.stats) % 4 ||
      reinterpret_cast<uintptr_t>(args.runs) % 4) {
    return fail(SAMRT_KERNELS_INVALID, "masks: logits %p, stats %p or runs %p is not aligned to its elements",
                args.logits, static_cast<void*>(args.stats), static_cast<void*>(args.runs));
  }
  return SAMRT_KERNELS_OK;
}

struct Layout {
  uint32_t *bits, *counts;
  int32_t count_words;  // per mask
  size_t bytes;
};

dim3 tiles_of(const samrt_masks_args& args) {
  return dim3(divided_up(args.width, kMaskColumns), divided_up(args.height, kMaskRows), args.masks);
}

Layout layout_of(const samrt_masks_args& args, void* begin) {
  Workspace workspace(begin);
  const dim3 tiles = tiles_of(args);
  const int32_t count_words = static_cast<int32_t>(tiles.x * tiles.y * kMaskWarps);
  auto* bits = workspace.take<uint32_t>(int64_t{args.masks} * divided_up(args.height, 32) * args.width);
  auto* counts = workspace.take<uint32_t>(int64_t{args.masks} * count_words);
  return {bits, counts, count_words, workspace.bytes()};
}

template <typename T>
int run(const samrt_masks_args& args, cudaStream_t stream) {
  const Layout layout = layout_of(args, args.workspace);
  MaskParameters<T> parameters;
  parameters.logits = static_cast<const T*>(args.logits);
  parameters.out = args.out;
  parameters.bits = args.stats ? layout.bits : nullptr;
  parameters.counts = args.stats ? layout.counts : nullptr;
  parameters.rows = {args.low_res_size, args.image_size, args.input_height, args.height};
  parameters.columns = {args.low_res_size, args.image_size, args.input_width, args.width};
  parameters.threshold = args.threshold;
  // Added in float64, as Python adds them for Meta.
  parameters.high = static_cast<float>(double{args.threshold} + args.stability_offset);
  parameters.low = static_cast<float>(double{args.threshold} - args.stability_offset);
  cudaError_t status = launch(mask_bits_kernel<T>, tiles_of(args), dim3(kMaskThreads), sizeof(MaskShared), stream,
                              parameters);
  if (status == cudaSuccess && args.stats) {
    const RunParameters runs{layout.bits,       layout.counts, args.stats, args.runs,
                             args.run_capacity, args.height,   args.width, layout.count_words};
    status =
        launch(mask_runs_kernel, dim3(args.masks), dim3(kRunThreads), kRunWarps * sizeof(MaskTotals), stream, runs);
  }
  return cuda_result("masks", status);
}

}  // namespace
}  // namespace samrt

extern "C" int samrt_masks_workspace(const samrt_masks_args* args, size_t* bytes) {
  if (!args || !bytes) return samrt::fail(SAMRT_KERNELS_INVALID, "masks: args or bytes is NULL");
  if (int code = samrt::check_sizes(*args)) return code;
  *bytes = samrt::layout_of(*args, nullptr).bytes;
  return SAMRT_KERNELS_OK;
}

extern "C" int samrt_masks_floor(const samrt_masks_args* args, int64_t* bytes) {
  if (!args || !bytes) return samrt::fail(SAMRT_KERNELS_INVALID, "masks: args or bytes is NULL");
  if (int code = samrt::check_sizes(*args)) return code;
  const int element = args->format == SAMRT_KERNELS_FP32 ? 4 : 2;
  const int64_t logits = int64_t{args->low_res_size} * args->low_res_size * element;
  const int64_t pixels = args->out ? int64_t{args->height} * args->width : 0;
  *bytes = args->masks * (logits + pixels + (args->stats ? int64_t{sizeof(samrt_mask_stats)} : 0));
  return SAMRT_KERNELS_OK;
}

extern "C" int samrt_masks(const samrt_masks_args* args, samrt_stream stream) {
  if (!args) return samrt::fail(SAMRT_KERNELS_INVALID, "masks: args is NULL");
  if (int code = samrt::check_sizes(*args)) return code;
  if (args->masks == 0) return SAMRT_KERNELS_OK;
  if (int code = samrt::check_rest(*args)) return code;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  return args->format == SAMRT_KERNELS_FP32 ? samrt::run<float>(*args, cuda_stream)
                                            : samrt::run<__half>(*args, cuda_stream);
}
