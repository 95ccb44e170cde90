// Resize, normalise, pad: uint8 pixels to float planes in one kernel.
//
// Floor: 3 bytes per source pixel in (1.5 for NV12), 3 * S * S elements out. A block makes a tile of the output. It
// goes down the source rows that the tile draws on, 32 at a time, and across them in pieces; so shared memory does not
// grow with the ratio of the sizes, and only what lies at the borders between tiles is read twice (mostly from L2):
//
//   source --> stage     a piece of 32 rows, channels apart, four neighbours of a row to a word
//   stage  --> across    a sum per row and column; one lane per row: all lanes have the same weights
//   across --> lines     rounded to 8 bits as Pillow does, four neighbours of a column to a word
//   lines  --> down      a sum per pixel of the tile; one lane per column: again the same weights
//   down   --> out       rounded, normalised; a warp writes 32 neighbours of a plane
//
// Rows of shared memory are an odd number of words apart, so that lanes meet different banks. With the source and the
// strides of the output on their side (TransposedPixels), the same goes down first and then across.
#pragma once

#include "../common/elements.cuh"
#include "pixels.cuh"
#include "resize_weights.cuh"

namespace samrt {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kTileColumns = 64;
constexpr int kColumnsPerLane = kTileColumns / 32;
constexpr int kColumnsPerWarp = kTileColumns / kWarps;
constexpr int kStageRows = 32;
constexpr int kStageGroups = 64;  // of four pixels

struct PreprocessShared {
  uint32_t stage[3][kStageRows][kStageGroups + 1];
  uint32_t lines[3][kTileColumns][kStageRows / 4 + 1];
};

// Of the values that one block resized; `low` > `high` where there are none.
struct Extremes {
  int32_t low, high;
};

// Where the values go, and as what. Channels are in the order of the source's memory.
template <typename T>
struct PreprocessOutput {
  T* planes;             // [3, image_size, image_size]
  Extremes* extremes;    // [tiles down, tiles across], or NULL
  int32_t image_size;
  int32_t row_stride, column_stride;  // in elements; one of them 1, the other image_size
  int32_t plane[3];                   // of each channel
  float mean[3], std[3];
};

template <typename T>
__device__ inline T rounded_to(float value) {
  return Element<T>::from_float(value);
}
template <>
__device__ inline float rounded_to<float>(float value) {
  return value;
}
__device__ inline float as_float(float value) { return value; }
__device__ inline float as_float(__half value) { return Element<__half>::to_float(value); }

// Sums of bytes times bytes, by the place that the weight's byte has in the weight.
struct PartialSums {
  uint32_t low = 0, middle = 0, high = 0;

  __device__ void add(uint32_t pixels, const Weights4& weights) {
    low = dot_bytes(pixels, weights.low, low);
    middle = dot_bytes(pixels, weights.middle, middle);
    high = dot_bytes(pixels, weights.high, high);
  }
  __device__ uint32_t total() const { return low + (middle << 8) + (high << 16); }
};

// What Pillow rounds a sum of pixels times weights to.
constexpr uint32_t kRoundUp = 1u << (kWeightBits - 1);
__device__ inline uint32_t rounded_byte(uint32_t sum) { return min(sum >> kWeightBits, 255u); }

// Groups that the windows from the first to the last of `count` neighbours touch.
struct Span {
  int begin, end;
};
__device__ inline Span span_of(const Window* windows, int count) {
  const Window last = windows[count - 1];
  return {windows[0].first, last.first + last.groups};
}

// One row's group --> stage.
template <typename Source>
__device__ inline void keep_group(PreprocessShared& shared, const Source& source,
                                  const uint32_t (&words)[Source::kWords], int row, int group) {
  uint32_t channels[3];
  source.unpack(words, channels);
#pragma unroll
  for (int c = 0; c < 3; ++c) shared.stage[c][row][group] = channels[c];
}

// source --> stage: kStageRows rows from `first_row` on, groups from `first_group` on. Rows from `row_end` on, which
// have no weight but 0, become copies of the last.
template <typename Source>
__device__ inline void fill_stage(PreprocessShared& shared, const Source& source, int first_row, int row_end,
                                  int first_group, int groups) {
  constexpr int kRows = kStageRows / kWarps;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll 1
  for (int group = lane; group < groups; group += 32) {
    if (source.is_direct(first_group + group)) {
      uint32_t words[kRows][Source::kWords];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        source.load_direct(min(first_row + warp + i * kWarps, row_end - 1), first_group + group, words[i]);
      }
#pragma unroll
      for (int i = 0; i < kRows; ++i) keep_group(shared, source, words[i], warp + i * kWarps, group);
    } else {
#pragma unroll 1
      for (int row = warp; row < kStageRows; row += kWarps) {
        uint32_t words[Source::kWords];
        source.load(min(first_row + row, row_end - 1), first_group + group, words);
        keep_group(shared, source, words, row, group);
      }
    }
  }
}

// stage --> across, for this warp's columns of the tile (warp, warp + kWarps, ...) and the lane's row.
__device__ inline void add_across(uint32_t (&across)[kColumnsPerWarp][3], const PreprocessShared& shared,
                                  const AxisWeights& axis, int tile_x, int columns, int first_group, int groups) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < kColumnsPerWarp; ++i) {
    const int column = warp + i * kWarps;
    if (column >= columns) continue;
    const Window window = axis.windows[tile_x + column];
    const Weights4* weights = axis.weights + static_cast<int64_t>(tile_x + column) * axis.stride;
    const int begin = max(window.first, first_group);
    const int end = min(window.first + window.groups, first_group + groups);
    PartialSums sums[3];
#pragma unroll 1
    for (int group = begin; group < end; ++group) {
      const Weights4 four = weights[group - window.first];
#pragma unroll
      for (int c = 0; c < 3; ++c) sums[c].add(shared.stage[c][lane][group - first_group], four);
    }
#pragma unroll
    for (int c = 0; c < 3; ++c) across[i][c] += sums[c].total();
  }
}

// across --> lines.
__device__ inline void keep_lines(PreprocessShared& shared, const uint32_t (&across)[kColumnsPerWarp][3]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < kColumnsPerWarp; ++i) {
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      uint8_t* line = reinterpret_cast<uint8_t*>(shared.lines[c][warp + i * kWarps]);
      line[lane] = static_cast<uint8_t>(rounded_byte(across[i][c]));
    }
  }
}

// lines --> down, for this warp's rows of the tile (warp, warp + kWarps, ...) and the lane's columns (lane, lane + 32).
template <int kRowsPerWarp>
__device__ inline void add_down(uint32_t (&down)[kRowsPerWarp][kColumnsPerLane][3], const PreprocessShared& shared,
                                const AxisWeights& axis, int tile_y, int rows, int first_group) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < kRowsPerWarp; ++i) {
    const int row = warp + i * kWarps;
    if (row >= rows) continue;
    const Window window = axis.windows[tile_y + row];
    const Weights4* weights = axis.weights + static_cast<int64_t>(tile_y + row) * axis.stride;
    const int begin = max(window.first, first_group);
    const int end = min(window.first + window.groups, first_group + kStageRows / 4);
    PartialSums sums[kColumnsPerLane][3];
#pragma unroll 1
    for (int group = begin; group < end; ++group) {
      const Weights4 four = weights[group - window.first];
#pragma unroll
      for (int j = 0; j < kColumnsPerLane; ++j) {
#pragma unroll
        for (int c = 0; c < 3; ++c) sums[j][c].add(shared.lines[c][lane + 32 * j][group - first_group], four);
      }
    }
#pragma unroll
    for (int j = 0; j < kColumnsPerLane; ++j) {
#pragma unroll
      for (int c = 0; c < 3; ++c) down[i][j][c] += sums[j][c].total();
    }
  }
}

// down --> out: also the padding, which is what of the tile lies beyond `rows` and `columns`.
template <int kRowsPerWarp, typename T>
__device__ inline void write_tile(const PreprocessOutput<T>& out,
                                  const uint32_t (&down)[kRowsPerWarp][kColumnsPerLane][3], int tile_x, int tile_y,
                                  int columns, int rows) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t plane_size = static_cast<int64_t>(out.image_size) * out.image_size;
#pragma unroll
  for (int i = 0; i < kRowsPerWarp; ++i) {
    const int row = warp + i * kWarps;
    if (tile_y + row >= out.image_size) continue;
    T* line = out.planes + static_cast<int64_t>(tile_y + row) * out.row_stride;
#pragma unroll
    for (int j = 0; j < kColumnsPerLane; ++j) {
      const int column = lane + 32 * j;
      if (tile_x + column >= out.image_size) continue;
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        const float value = static_cast<float>(rounded_byte(down[i][j][c]));
        const bool inside = row < rows && column < columns;
        T& element = line[out.plane[c] * plane_size + static_cast<int64_t>(tile_x + column) * out.column_stride];
        element = rounded_to<T>(inside ? (value - out.mean[c]) / out.std[c] : 0.f);
      }
    }
  }
}

// The extremes over a block, in every thread. Ends and begins with a barrier.
__device__ inline Extremes over_block(Extremes own) {
  Extremes* of_warps = reinterpret_cast<Extremes*>(dynamic_shared());
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    own.low = min(own.low, __shfl_xor_sync(kFullWarp, own.low, lanes));
    own.high = max(own.high, __shfl_xor_sync(kFullWarp, own.high, lanes));
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = own;
  __syncthreads();
  for (int warp = 0; warp < kWarps; ++warp) {
    own.low = min(own.low, of_warps[warp].low);
    own.high = max(own.high, of_warps[warp].high);
  }
  return own;
}

template <int kRowsPerWarp>
__device__ inline void note_extremes(Extremes* place, const uint32_t (&down)[kRowsPerWarp][kColumnsPerLane][3],
                                     int columns, int rows) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  Extremes own{255, 0};
#pragma unroll
  for (int i = 0; i < kRowsPerWarp; ++i) {
#pragma unroll
    for (int j = 0; j < kColumnsPerLane; ++j) {
      if (warp + i * kWarps >= rows || lane + 32 * j >= columns) continue;
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        const int value = static_cast<int>(rounded_byte(down[i][j][c]));
        own.low = min(own.low, value);
        own.high = max(own.high, value);
      }
    }
  }
  own = over_block(own);
  if (threadIdx.x == 0) *place = own;
}

// One block per tile of kTileColumns x (kRowsPerWarp * kWarps) of the S x S output.
template <typename Source, typename T, int kRowsPerWarp>
__global__ void __launch_bounds__(kThreads, 2) preprocess_kernel(Source source, int source_rows, ResizeWeights weights,
                                                              PreprocessOutput<T> out) {
  PreprocessShared& shared = *reinterpret_cast<PreprocessShared*>(dynamic_shared());
  const int tile_x = blockIdx.x * kTileColumns, tile_y = blockIdx.y * kRowsPerWarp * kWarps;
  // What of the tile is not padding.
  const int columns = min(kTileColumns, weights.columns.target - tile_x);
  const int rows = min(kRowsPerWarp * kWarps, weights.rows.target - tile_y);

  uint32_t down[kRowsPerWarp][kColumnsPerLane][3];
#pragma unroll
  for (int i = 0; i < kRowsPerWarp * kColumnsPerLane * 3; ++i) down[i / 6][i / 3 % 2][i % 3] = kRoundUp;
  if (columns > 0 && rows > 0) {
    const Span across_span = span_of(weights.columns.windows + tile_x, columns);
    const Span down_span = span_of(weights.rows.windows + tile_y, rows);
    const int row_end = min(4 * down_span.end, source_rows);
    for (int lines = down_span.begin; lines < down_span.end; lines += kStageRows / 4) {
      uint32_t across[kColumnsPerWarp][3];
#pragma unroll
      for (int i = 0; i < kColumnsPerWarp * 3; ++i) across[i / 3][i % 3] = kRoundUp;
      for (int piece = across_span.begin; piece < across_span.end; piece += kStageGroups) {
        const int groups = min(kStageGroups, across_span.end - piece);
        __syncthreads();
        fill_stage(shared, source, 4 * lines, row_end, piece, groups);
        __syncthreads();
        add_across(across, shared, weights.columns, tile_x, columns, piece, groups);
      }
      keep_lines(shared, across);
      __syncthreads();
      add_down(down, shared, weights.rows, tile_y, rows, lines);
    }
  }
  write_tile(out, down, tile_x, tile_y, columns, rows);
  if (out.extremes) note_extremes(out.extremes + blockIdx.y * gridDim.x + blockIdx.x, down, columns, rows);
}

// LiteMedSAM's normalisation, in place on planes that hold 0..255: each element of the input once in and once out. One
// block per row and channel.
template <typename T>
__global__ void __launch_bounds__(kThreads) min_max_kernel(T* planes, const Extremes* extremes, int tiles,
                                                           int image_size, int input_width) {
  Extremes all{255, 0};
  for (int i = threadIdx.x; i < tiles; i += kThreads) {
    all.low = min(all.low, extremes[i].low);
    all.high = max(all.high, extremes[i].high);
  }
  all = over_block(all);
  const float low = static_cast<float>(all.low);
  const float range = fmaxf(static_cast<float>(all.high) - low, 1e-8f);
  T* line = planes + (static_cast<int64_t>(blockIdx.y) * image_size + blockIdx.x) * image_size;
  for (int x = threadIdx.x; x < input_width; x += kThreads) {
    line[x] = rounded_to<T>((as_float(line[x]) - low) / range);
  }
}

}  // namespace samrt
