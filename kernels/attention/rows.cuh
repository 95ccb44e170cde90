// How rows of HeadDim elements lie in shared memory, and what a lane names of them to ldmatrix.
#pragma once

#include "../common/device.cuh"

namespace samrt {

// Where 16-byte chunk `chunk` of row `row` lies in a tile of rows of HeadDim elements, in elements. Eight consecutive
// rows of one chunk fall into different banks, as ldmatrix reads them.
template <int HeadDim>
__device__ inline int swizzled(int row, int chunk) {
  static_assert(HeadDim == 64 || HeadDim == 80, "the swizzle is made for rows of 8 or 10 chunks");
  if constexpr (HeadDim == 64) return row * 64 + (chunk ^ (row & 7)) * 8;
  // 160-byte rows: row and row + 4 would collide, so the latter are rotated by one chunk.
  const int rotated = chunk + ((row >> 2) & 1);
  return row * 80 + (rotated == 10 ? 0 : rotated) * 8;
}

// The chunks that one lane names to ldmatrix in a row of such a tile: number 2 * step + half for step = 0, 1, ...; in rows
// a multiple of 16 further up or down they lie at the same offsets from the row's start. That leaves one addition or
// exclusive or to make each address of.
template <int HeadDim>
class LaneChunks {
 public:
  __device__ LaneChunks(int row, int half)
      : first_(2 * swizzled<HeadDim>(row, half)), last_(2 * swizzled<HeadDim>(row, HeadDim / 8 - 2 + half)) {
    make_opaque(first_);
    if constexpr (HeadDim != 64) make_opaque(last_);
  }

  // The chunk of `step` in the tile at `rows`, `more` rows (a multiple of 16) away.
  __device__ const void* at(const void* rows, int step, int more) const {
    const int in_row = HeadDim == 64 ? first_ ^ (step * 32) : step < HeadDim / 16 - 1 ? first_ + step * 32 : last_;
    return static_cast<const unsigned char*>(rows) + in_row + more * 2 * HeadDim;
  }

 private:
  int first_, last_;  // in bytes; the last may lie before the first, where it is rotated past the row's end
};

}  // namespace samrt
