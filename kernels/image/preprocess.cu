// Preprocessing's host side: checks, the layout of the workspace, launches.
#include "preprocess.cuh"

#include <cmath>
#include <cstdint>

#include "../common/cuda_result.h"
#include "../common/launch.cuh"
#include "../samrt_image.h"
#include "workspace.h"

namespace samrt {
namespace {

bool is_nv12(const samrt_preprocess_args& args) {
  return args.pixels == SAMRT_IMAGE_NV12_BT601 || args.pixels == SAMRT_IMAGE_NV12_BT709;
}

int check_sizes(const samrt_preprocess_args& args) {
  if (args.pixels < SAMRT_IMAGE_RGB || args.pixels > SAMRT_IMAGE_NV12_BT709) {
    return fail(SAMRT_KERNELS_INVALID, "preprocess: unknown pixels %d; 0 is RGB, 1 BGR, 2 NV12 BT.601, 3 NV12 BT.709",
                args.pixels);
  }
  if (args.height < 1 || args.width < 1 || args.height > SAMRT_IMAGE_MAX_SIDE || args.width > SAMRT_IMAGE_MAX_SIDE) {
    return fail(SAMRT_KERNELS_INVALID, "preprocess: the image is %d x %d; sides must be 1 to %d", args.height, args.width,
                SAMRT_IMAGE_MAX_SIDE);
  }
  if (is_nv12(args) && (args.height % 2 || args.width % 2)) {
    return fail(SAMRT_KERNELS_INVALID, "preprocess: NV12 images must have even sides, not %d x %d", args.height,
                args.width);
  }
  if (args.image_size < 1 || args.image_size > SAMRT_IMAGE_MAX_INPUT) {
    return fail(SAMRT_KERNELS_INVALID, "preprocess: image_size is %d; it must be 1 to %d", args.image_size,
                SAMRT_IMAGE_MAX_INPUT);
  }
  if (args.input_height < 1 || args.input_width < 1 || args.input_height > args.image_size ||
      args.input_width > args.image_size) {
    return fail(SAMRT_KERNELS_INVALID, "preprocess: the input is %d x %d; its sides must be 1 to image_size, %d",
                args.input_height, args.input_width, args.image_size);
  }
  if (args.format != SAMRT_KERNELS_FP32 && args.format != SAMRT_KERNELS_FP16) {
    return fail(SAMRT_KERNELS_INVALID, "preprocess: unknown number format %d; 0 is fp16, 2 is fp32", args.format);
  }
  if (args.normalization != SAMRT_NORMALIZE_MEAN_STD && args.normalization != SAMRT_NORMALIZE_MIN_MAX) {
    return fail(SAMRT_KERNELS_INVALID, "preprocess: unknown normalization %d; 0 is mean and std, 1 is min and max",
                args.normalization);
  }
  if (args.vertical_first != 0 && args.vertical_first != 1) {
    return fail(SAMRT_KERNELS_INVALID, "preprocess: vertical_first is %d; it must be 0 or 1", args.vertical_first);
  }
  return SAMRT_KERNELS_OK;
}

int check_workspace(const samrt_preprocess_args& args) {
  if (!args.workspace || reinterpret_cast<uintptr_t>(args.workspace) % 16) {
    return fail(SAMRT_KERNELS_INVALID, "preprocess: workspace is %p; it must not be NULL, and must be aligned to 16 bytes",
                args.workspace);
  }
  return SAMRT_KERNELS_OK;
}

int check_image(const samrt_preprocess_args& args) {
  const int64_t row_bytes = is_nv12(args) ? args.width : 3 * int64_t{args.width};
  if (!args.image || !args.out) return fail(SAMRT_KERNELS_INVALID, "preprocess: image or out is NULL");
  if (args.image_pitch < row_bytes) {
    return fail(SAMRT_KERNELS_INVALID, "preprocess: image_pitch is %lld bytes, but a row has %lld",
                static_cast<long long>(args.image_pitch), static_cast<long long>(row_bytes));
  }
  if (is_nv12(args) && !args.chroma) return fail(SAMRT_KERNELS_INVALID, "preprocess: NV12 needs chroma; it is NULL");
  if (is_nv12(args) && args.chroma_pitch < row_bytes) {
    return fail(SAMRT_KERNELS_INVALID, "preprocess: chroma_pitch is %lld bytes, but a row has %lld",
                static_cast<long long>(args.chroma_pitch), static_cast<long long>(row_bytes));
  }
  const int element = args.format == SAMRT_KERNELS_FP32 ? 4 : 2;
  if (reinterpret_cast<uintptr_t>(args.out) % element) {
    return fail(SAMRT_KERNELS_INVALID, "preprocess: out is %p, not aligned to its elements of %d bytes", args.out,
                element);
  }
  for (int c = 0; c < 3 && args.normalization == SAMRT_NORMALIZE_MEAN_STD; ++c) {
    if (!std::isfinite(args.mean[c]) || !std::isfinite(args.std[c]) || args.std[c] <= 0) {
      return fail(SAMRT_KERNELS_INVALID, "preprocess: mean %g and std %g of channel %d must be finite, and std above 0",
                  args.mean[c], args.std[c], c);
    }
  }
  return SAMRT_KERNELS_OK;
}

// Low tiles where tall ones are too few to fill a large GPU; each has its own border, read twice.
constexpr int kTallTile = 4, kLowTile = 1;  // rows per warp
bool tall_tiles(const samrt_preprocess_args& args) {
  return !args.vertical_first &&
         int64_t{args.input_height} * args.input_width >= 256 * kTileColumns * kTallTile * kWarps;
}
dim3 tiles_of(const samrt_preprocess_args& args) {
  const int rows = (tall_tiles(args) ? kTallTile : kLowTile) * kWarps;
  return dim3(divided_up(args.image_size, kTileColumns), divided_up(args.image_size, rows));
}

struct Layout {
  ResizeWeights weights;
  Extremes* extremes;
  size_t bytes;
};

AxisWeights take_axis(Workspace& workspace, int source, int target) {
  const int stride = most_groups(source, target);
  Window* windows = workspace.take<Window>(target);
  return {windows, workspace.take<Weights4>(int64_t{target} * stride), stride, source, target};
}

Layout layout_of(const samrt_preprocess_args& args, void* begin) {
  Workspace workspace(begin);
  const AxisWeights rows = take_axis(workspace, args.height, args.input_height);
  const AxisWeights columns = take_axis(workspace, args.width, args.input_width);
  // For low tiles, the more numerous ones: so the size does not depend on anything but sizes.
  const int64_t most_tiles =
      int64_t{divided_up(args.image_size, kTileColumns)} * divided_up(args.image_size, kLowTile * kWarps);
  Extremes* extremes = workspace.take<Extremes>(most_tiles);
  return {{rows, columns}, extremes, workspace.bytes()};
}

template <typename T, typename Source>
int run(const samrt_preprocess_args& args, const Source& source, cudaStream_t stream) {
  const Layout layout = layout_of(args, args.workspace);
  const bool min_max = args.normalization == SAMRT_NORMALIZE_MIN_MAX;
  const int side = args.image_size;
  PreprocessOutput<T> out{static_cast<T*>(args.out), min_max ? layout.extremes : nullptr, side, side, 1, {}, {}, {}};
  for (int c = 0; c < 3; ++c) {
    out.plane[c] = args.pixels == SAMRT_IMAGE_BGR ? 2 - c : c;
    // With min and max the values themselves go out first: 0 to 255 are exact in every format.
    out.mean[c] = min_max ? 0.f : args.mean[out.plane[c]];
    out.std[c] = min_max ? 1.f : args.std[out.plane[c]];
  }
  const dim3 tiles = tiles_of(args);
  cudaError_t status;
  if (args.vertical_first) {
    out.row_stride = 1;
    out.column_stride = side;
    const ResizeWeights sideways{layout.weights.columns, layout.weights.rows};
    status = launch(preprocess_kernel<TransposedPixels<Source>, T, kLowTile>, tiles, dim3(kThreads),
                    sizeof(PreprocessShared), stream, TransposedPixels<Source>{source, args.height}, args.width,
                    sideways, out);
  } else {
    const auto kernel =
        tall_tiles(args) ? preprocess_kernel<Source, T, kTallTile> : preprocess_kernel<Source, T, kLowTile>;
    status = launch(kernel, tiles, dim3(kThreads), sizeof(PreprocessShared), stream, source, args.height,
                    layout.weights, out);
  }
  if (status == cudaSuccess && min_max) {
    status = launch(min_max_kernel<T>, dim3(args.input_height, 3), dim3(kThreads), kWarps * sizeof(Extremes), stream,
                    out.planes, out.extremes, static_cast<int>(tiles.x * tiles.y), side, args.input_width);
  }
  return cuda_result("preprocess", status);
}

template <typename T>
int run(const samrt_preprocess_args& args, cudaStream_t stream) {
  const auto* image = static_cast<const uint8_t*>(args.image);
  bool aligned = is_aligned(image, args.image_pitch);
  if (!is_nv12(args)) return run<T>(args, InterleavedPixels{image, args.image_pitch, args.width, aligned}, stream);
  const auto* chroma = static_cast<const uint8_t*>(args.chroma);
  aligned = aligned && is_aligned(chroma, args.chroma_pitch);
  const YuvFactors factors = args.pixels == SAMRT_IMAGE_NV12_BT709 ? kBt709 : kBt601;
  return run<T>(
      args, Nv12Pixels{image, chroma, args.image_pitch, args.chroma_pitch, args.width, aligned, factors}, stream);
}

}  // namespace
}  // namespace samrt

extern "C" int samrt_input_size(int32_t height, int32_t width, int32_t image_size, int32_t* input_height,
                                int32_t* input_width) {
  if (height < 1 || width < 1 || image_size < 1 || !input_height || !input_width) {
    return samrt::fail(SAMRT_KERNELS_INVALID, "input_size: the sides %d, %d and %d must be at least 1, and the results not NULL",
                       height, width, image_size);
  }
  const double scale = static_cast<double>(image_size) / (height > width ? height : width);
  // volatile: contracted with the sum, a product at the edge of rounding would differ from Python's.
  const volatile double exact_height = height * scale, exact_width = width * scale;
  const int rounded_height = static_cast<int>(exact_height + 0.5), rounded_width = static_cast<int>(exact_width + 0.5);
  *input_height = rounded_height < 1 ? 1 : rounded_height;
  *input_width = rounded_width < 1 ? 1 : rounded_width;
  return SAMRT_KERNELS_OK;
}

extern "C" int samrt_preprocess_workspace(const samrt_preprocess_args* args, size_t* bytes) {
  if (!args || !bytes) return samrt::fail(SAMRT_KERNELS_INVALID, "preprocess: args or bytes is NULL");
  if (int code = samrt::check_sizes(*args)) return code;
  *bytes = samrt::layout_of(*args, nullptr).bytes;
  return SAMRT_KERNELS_OK;
}

extern "C" int samrt_preprocess_floor(const samrt_preprocess_args* args, int64_t* bytes) {
  if (!args || !bytes) return samrt::fail(SAMRT_KERNELS_INVALID, "preprocess: args or bytes is NULL");
  if (int code = samrt::check_sizes(*args)) return code;
  const int64_t pixels = int64_t{args->height} * args->width;
  const int64_t elements = 3 * int64_t{args->image_size} * args->image_size;
  *bytes = (samrt::is_nv12(*args) ? pixels + pixels / 2 : 3 * pixels) +
           elements * (args->format == SAMRT_KERNELS_FP32 ? 4 : 2);
  return SAMRT_KERNELS_OK;
}

extern "C" int samrt_preprocess_prepare(const samrt_preprocess_args* args, samrt_stream stream) {
  if (!args) return samrt::fail(SAMRT_KERNELS_INVALID, "preprocess: args is NULL");
  if (int code = samrt::check_sizes(*args)) return code;
  if (int code = samrt::check_workspace(*args)) return code;
  const samrt::ResizeWeights weights = samrt::layout_of(*args, args->workspace).weights;
  const int threads = 64;
  const dim3 blocks(samrt::divided_up(args->input_height + args->input_width, threads));
  return samrt::cuda_result("preprocess", samrt::launch(samrt::resize_weights_kernel, blocks, dim3(threads), 0,
                                                        static_cast<cudaStream_t>(stream), weights));
}

extern "C" int samrt_preprocess(const samrt_preprocess_args* args, samrt_stream stream) {
  if (!args) return samrt::fail(SAMRT_KERNELS_INVALID, "preprocess: args is NULL");
  if (int code = samrt::check_sizes(*args)) return code;
  if (int code = samrt::check_workspace(*args)) return code;
  if (int code = samrt::check_image(*args)) return code;
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  return args->format == SAMRT_KERNELS_FP32 ? samrt::run<float>(*args, cuda_stream)
                                            : samrt::run<__half>(*args, cuda_stream);
}
