// Bits to area, box, stability counts and COCO runs.
//
// Floor: one bit per pixel in, four bytes per run out. One block per mask; it goes along the mask a block of columns at
// a time. Each thread counts the changes down its column, a scan over the columns gives where their runs go, and a
// second look at the same words, which are in the cache by then, writes them.
#pragma once

#include "packed_bytes.cuh"
#include "../samrt_image.h"

namespace samrt {

constexpr int kRunThreads = 512;
constexpr int kRunWarps = kRunThreads / 32;

struct RunParameters {
  const uint32_t* bits;    // [masks, strips, width], as masks.cuh writes them
  const uint32_t* counts;  // [masks, count_words]
  samrt_mask_stats* stats;
  uint32_t* runs;  // [masks, capacity], or NULL
  int32_t capacity;
  int32_t height, width, count_words;
};

// Changes of the pixels in column-major order: how many, and the position of the last; 0 where there are none.
struct Changes {
  uint32_t count, last;
};
__device__ inline Changes operator+(Changes left, Changes right) {
  return {left.count + right.count, right.count ? right.last : left.last};
}

// Over the columns before this thread's. `total` becomes that over all of the block's. With barriers.
__device__ inline Changes scan_block(Changes own, Changes& total) {
  Changes* of_warps = reinterpret_cast<Changes*>(dynamic_shared());
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  Changes inclusive = own;
  for (int distance = 1; distance < 32; distance *= 2) {
    const Changes left{__shfl_up_sync(kFullWarp, inclusive.count, distance),
                       __shfl_up_sync(kFullWarp, inclusive.last, distance)};
    if (lane >= distance) inclusive = left + inclusive;
  }
  __syncthreads();  // the last scan's are read
  if (lane == 31) of_warps[warp] = inclusive;
  __syncthreads();
  Changes before{__shfl_up_sync(kFullWarp, inclusive.count, 1), __shfl_up_sync(kFullWarp, inclusive.last, 1)};
  if (lane == 0) before = {0, 0};
  total = {0, 0};
  for (int i = 0; i < kRunWarps; ++i) {
    if (i == warp) before = total + before;
    total = total + of_warps[i];
  }
  return before;
}

// A column of a mask, 32 rows at a time.
struct BitColumn {
  const uint32_t* words;  // of strip 0
  int32_t stride, height;
  uint32_t before;  // the last pixel of the column before, 0 or 1

  // Calls visit(first row of a strip, its pixels, which of them differ from the one before).
  template <typename Visit>
  __device__ void for_each_strip(Visit visit) const {
    uint32_t carry = before;
    for (int y = 0; y < height; y += 32) {
      const uint32_t pixels = words[static_cast<int64_t>(y / 32) * stride];
      const uint32_t valid = 0xffffffffu >> max(y + 32 - height, 0);
      visit(y, pixels, (pixels ^ (pixels << 1 | carry)) & valid);
      carry = pixels >> 31;
    }
  }
};

__device__ inline BitColumn column_of(const uint32_t* mask, int x, int width, int height) {
  const int last_row = height - 1;
  // The word before a mask's first column is not looked at.
  const uint32_t before = x > 0 ? mask[static_cast<int64_t>(last_row / 32) * width + x - 1] >> last_row % 32 & 1 : 0;
  return {mask + x, width, height, before};
}

// Where runs go. Those past `capacity` are dropped.
struct RunWriter {
  uint32_t* runs;
  uint32_t capacity, index, last;

  // A run that ends where position `at` begins another.
  __device__ void end_at(uint32_t at) {
    if (index < capacity) runs[index] = at - last;
    ++index;
    last = at;
  }
};

struct MaskTotals {
  uint32_t area = 0, above_high = 0, above_low = 0;
  int32_t x0 = INT32_MAX, y0 = INT32_MAX, x1 = -1, y1 = -1;

  __device__ void add(const MaskTotals& other) {
    area += other.area;
    above_high += other.above_high;
    above_low += other.above_low;
    x0 = min(x0, other.x0);
    y0 = min(y0, other.y0);
    x1 = max(x1, other.x1);
    y1 = max(y1, other.y1);
  }
  __device__ MaskTotals from_lane(int lanes) const {
    MaskTotals other;
    other.area = __shfl_xor_sync(kFullWarp, area, lanes);
    other.above_high = __shfl_xor_sync(kFullWarp, above_high, lanes);
    other.above_low = __shfl_xor_sync(kFullWarp, above_low, lanes);
    other.x0 = __shfl_xor_sync(kFullWarp, x0, lanes);
    other.y0 = __shfl_xor_sync(kFullWarp, y0, lanes);
    other.x1 = __shfl_xor_sync(kFullWarp, x1, lanes);
    other.y1 = __shfl_xor_sync(kFullWarp, y1, lanes);
    return other;
  }
};

__device__ inline MaskTotals sum_block(MaskTotals own) {
  MaskTotals* of_warps = reinterpret_cast<MaskTotals*>(dynamic_shared());
  for (int lanes = 16; lanes > 0; lanes /= 2) own.add(own.from_lane(lanes));
  __syncthreads();
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = own;
  __syncthreads();
  MaskTotals all;
  for (int warp = 0; warp < kRunWarps; ++warp) all.add(of_warps[warp]);
  return all;
}

// One block per mask.
static __global__ void __launch_bounds__(kRunThreads) mask_runs_kernel(RunParameters p) {
  const int64_t mask = blockIdx.x;
  const int strips = (p.height + 31) / 32;
  const uint32_t* bits = p.bits + mask * strips * p.width;
  uint32_t* runs = p.runs ? p.runs + mask * p.capacity : nullptr;
  const uint32_t capacity = p.runs ? static_cast<uint32_t>(p.capacity) : 0;

  MaskTotals totals;
  Changes before{0, 0};  // of all columns so far
  for (int first = 0; first < p.width; first += kRunThreads) {
    const int x = first + static_cast<int>(threadIdx.x);
    const uint32_t start = static_cast<uint32_t>(x) * static_cast<uint32_t>(p.height);
    Changes own{0, 0};
    if (x < p.width) {
      column_of(bits, x, p.width, p.height).for_each_strip([&](int y, uint32_t pixels, uint32_t changes) {
        if (changes) own = {own.count + __popc(changes), start + y + 31 - __clz(static_cast<int>(changes))};
        if (!pixels) return;
        totals.area += __popc(pixels);
        totals.x0 = min(totals.x0, x);
        totals.x1 = x;
        totals.y0 = min(totals.y0, y + __ffs(static_cast<int>(pixels)) - 1);
        totals.y1 = max(totals.y1, y + 31 - __clz(static_cast<int>(pixels)));
      });
    }
    Changes here;
    const Changes earlier = before + scan_block(own, here);
    before = before + here;
    if (own.count && earlier.count < capacity) {
      RunWriter writer{runs, capacity, earlier.count, earlier.last};
      column_of(bits, x, p.width, p.height).for_each_strip([&](int y, uint32_t, uint32_t changes) {
        for (; changes; changes &= changes - 1) writer.end_at(start + y + __ffs(static_cast<int>(changes)) - 1);
      });
    }
  }
  if (threadIdx.x == 0) {
    RunWriter writer{runs, capacity, before.count, before.last};
    writer.end_at(static_cast<uint32_t>(p.width) * static_cast<uint32_t>(p.height));
  }

  const uint32_t* counts = p.counts + mask * p.count_words;
  for (int i = threadIdx.x; i < p.count_words; i += kRunThreads) {
    totals.above_high += counts[i] >> 16;
    totals.above_low += counts[i] & 0xffff;
  }
  const MaskTotals all = sum_block(totals);
  if (threadIdx.x != 0) return;
  samrt_mask_stats stats{all.area, all.above_high, all.above_low, 0, 0, 0, 0, before.count + 1};
  if (all.area) {
    stats.x0 = all.x0;
    stats.y0 = all.y0;
    stats.x1 = all.x1;
    stats.y1 = all.y1;
  }
  p.stats[mask] = stats;
}

}  // namespace samrt
