// Low-res logits to one bit per pixel of the original, and to uint8 masks.
//
// Floor: the logits once in, one byte per pixel and mask out. A block makes a tile of one mask; a thread goes down one
// column of it. Across, the sum of three logits is taken once per low-res row and kept while pixels lie between the
// same rows; down, it costs three products per pixel. A span of pixels between the same rows, where a warp's logits are
// all on one side of every threshold, costs a vote: most of an image.
//
// Bits: word [mask][strip][x] holds rows 32 * strip to 32 * strip + 31 of column x, the topmost in bit 0. A thread
// makes its words alone, and runs down the columns are found in them at 32 rows an instruction (mask_runs.cuh).
#pragma once

#include "../common/elements.cuh"
#include "upscale.cuh"

namespace samrt {

constexpr int kMaskThreads = 128;
constexpr int kMaskWarps = kMaskThreads / 32;
constexpr int kMaskColumns = kMaskThreads;  // of a tile
constexpr int kMaskStrips = kMaskWarps;     // of a tile: each warp writes one of them out
constexpr int kMaskRows = 32 * kMaskStrips;

template <typename T>
struct MaskParameters {
  const T* logits;   // [masks, low_res, low_res]
  uint8_t* out;      // [masks, height, width], or NULL
  uint32_t* bits;    // [masks, strips, width]; NULL where nothing reads them
  uint32_t* counts;  // [masks, tiles down, tiles across, kMaskWarps]: pixels above high, times 2^16, and above low
  UpscaleAxis rows, columns;
  float threshold, high, low;
};

__device__ inline float logit_value(float value) { return value; }
__device__ inline float logit_value(__half value) { return Element<__half>::to_float(value); }

// Finite, so that what has no weight has no effect. A NaN becomes so low that whatever it has weight in is no mask.
__device__ inline float finite_logit(float value) { return fminf(fmaxf(value, -1e30f), 1e30f); }

// The sum across, in low-res row `row`.
template <typename T>
__device__ inline float sum_across(const T* logits, int row, int low_res, const Weights3& columns) {
  const T* line = logits + min(row, low_res - 1) * low_res;
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    sum += columns.weight[i] * finite_logit(logit_value(line[min(columns.first + i, low_res - 1)]));
  }
  return sum;
}

struct MaskShared {
  Weights3 rows[kMaskRows];
  int32_t span_end[kMaskRows];  // the first row of the tile that lies between other low-res rows
  uint32_t words[kMaskStrips][kMaskColumns];
};

__device__ inline void fill_rows(MaskShared& shared, const UpscaleAxis& axis, int tile_y, int rows) {
  const int row = threadIdx.x;
  if (row < rows) shared.rows[row] = upscale_weights(axis, tile_y + row);
  __syncthreads();
  if (row >= rows) return;
  int end = row + 1;
  while (end < rows && shared.rows[end].first == shared.rows[row].first) ++end;
  shared.span_end[row] = end;
}

// Four bytes 0 or 1 from bit `row` of four words.
__device__ inline uint32_t bytes_of_row(const uint32_t (&words)[4], int row) {
  return (words[0] >> row & 1) | (words[1] >> row & 1) << 8 | (words[2] >> row & 1) << 16 | (words[3] >> row & 1) << 24;
}

// The tile's pixels, a warp per strip. `out` is pixel (0, 0) of the mask.
__device__ inline void write_bytes(const MaskShared& shared, uint8_t* out, int tile_x, int tile_y, int height,
                                   int width) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first_row = tile_y + 32 * warp, rows = min(32, height - first_row);
  uint8_t* line = out + static_cast<int64_t>(first_row) * width + tile_x;
  uint32_t words[4];
  if (width % 4 == 0 && reinterpret_cast<uintptr_t>(out) % 4 == 0) {
    // Four neighbours per lane, all of them inside or none.
    if (tile_x + 4 * lane >= width) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = shared.words[warp][4 * lane + i];
#pragma unroll 4
    for (int row = 0; row < rows; ++row, line += width) {
      reinterpret_cast<uint32_t*>(line)[lane] = bytes_of_row(words, row);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = shared.words[warp][32 * i + lane];
#pragma unroll 2
    for (int row = 0; row < rows; ++row, line += width) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (tile_x + 32 * i + lane < width) line[32 * i + lane] = static_cast<uint8_t>(words[i] >> row & 1);
      }
    }
  }
}

// One block per tile and mask.
template <typename T>
__global__ void __launch_bounds__(kMaskThreads) mask_bits_kernel(MaskParameters<T> p) {
  MaskShared& shared = *reinterpret_cast<MaskShared*>(dynamic_shared());
  const int height = p.rows.original, width = p.columns.original, low_res = p.rows.low_res;
  const int tile_x = blockIdx.x * kMaskColumns, tile_y = blockIdx.y * kMaskRows;
  const int rows = min(kMaskRows, height - tile_y);
  const int x = tile_x + threadIdx.x;
  const bool inside = x < width;
  const int64_t mask = blockIdx.z;
  fill_rows(shared, p.rows, tile_y, rows);
  const Weights3 columns = upscale_weights(p.columns, min(x, width - 1));
  const T* logits = p.logits + mask * low_res * low_res;
  const float lowest_threshold = fminf(p.low, p.threshold), highest_threshold = fmaxf(p.high, p.threshold);
  __syncthreads();

  uint32_t above_high = 0, above_low = 0;
  float across[3] = {0.f, 0.f, 0.f};
  int current = -4;  // low-res row of across[0]; at first none near
  for (int strip = 0; 32 * strip < rows; ++strip) {
    const int strip_end = min(32 * strip + 32, rows);
    uint32_t word = 0;
    for (int row = 32 * strip; row < strip_end;) {
      const int first = shared.rows[row].first;
      if (first == current + 1) {
        across[0] = across[1];
        across[1] = across[2];
        across[2] = sum_across(logits, first + 2, low_res, columns);
      } else if (first != current) {
#pragma unroll
        for (int i = 0; i < 3; ++i) across[i] = sum_across(logits, first + i, low_res, columns);
      }
      current = first;
      const int end = min(shared.span_end[row], strip_end);
      // No weighted mean of the three, which pixels of the span are, lies beyond them.
      const float least = fminf(fminf(across[0], across[1]), across[2]);
      const float most = fmaxf(fmaxf(across[0], across[1]), across[2]);
      if (__all_sync(kFullWarp, most < lowest_threshold)) {
        row = end;
      } else if (__all_sync(kFullWarp, least > highest_threshold)) {
        const uint32_t ones = 0xffffffffu >> (32 - (end - row));
        word |= ones << row % 32;
        above_high += end - row;
        above_low += end - row;
        row = end;
      } else {
        for (; row < end; ++row) {
          const Weights3 down = shared.rows[row];
          const float logit = down.weight[0] * across[0] + down.weight[1] * across[1] + down.weight[2] * across[2];
          word |= static_cast<uint32_t>(logit > p.threshold) << row % 32;
          above_high += logit > p.high;
          above_low += logit > p.low;
        }
      }
    }
    shared.words[strip][threadIdx.x] = word;
    if (p.bits && inside) {
      const int64_t strips = (height + 31) / 32, whole_strip = tile_y / 32 + strip;
      p.bits[(mask * strips + whole_strip) * width + x] = word;
    }
  }

  if (p.counts) {
    uint32_t packed = inside ? above_high << 16 | above_low : 0;  // a warp's part of a tile is below 2^16
    for (int lanes = 16; lanes > 0; lanes /= 2) packed += __shfl_xor_sync(kFullWarp, packed, lanes);
    const int64_t tile = (mask * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    if (threadIdx.x % 32 == 0) p.counts[tile * kMaskWarps + threadIdx.x / 32] = packed;
  }
  if (p.out) {
    __syncthreads();
    if (tile_y + 32 * static_cast<int>(threadIdx.x / 32) < height) {
      write_bytes(shared, p.out + mask * height * width, tile_x, tile_y, height, width);
    }
  }
}

}  // namespace samrt
