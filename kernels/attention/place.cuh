// Where the work of a block lies: which head, which window of which image, which of its queries.
#pragma once

#include "../common/device.cuh"
#include "attention_launch.h"

namespace samrt {

// Rows and columns are counted in the window, or in the whole grid where there are no windows. Queries are numbered down
// the columns, in row tiles of 16.
template <typename T, int HeadDim, int Queries>
class Place {
 public:
  __device__ explicit Place(const AttentionParameters& parameters) : p(parameters) {
    forget();
    const int rows = p.grid_h - top(), columns = p.grid_w - left();
    rows_ = rows < p.side_h ? rows : p.side_h;
    columns_ = columns < p.side_w ? columns : p.side_w;
    make_opaque(rows_);
    make_opaque(columns_);
  }

  // Of a row tile of this block, counted through the block: its column and first row.
  __device__ int column_of(int tile) const { return (first_tile() + tile) / p.tiles_per_column; }
  __device__ int first_row_of(int tile) const { return (first_tile() + tile) % p.tiles_per_column * 16; }

  __device__ bool in_grid(int row, int column) const { return row < rows_ && column < columns_; }
  // All tokens of the window are in the grid.
  __device__ bool inside() const { return rows_ == p.side_h && columns_ == p.side_w; }
  // Of the token at (row, column), counted through the image; to be read, it must be in the grid.
  __device__ int token(int row, int column) const { return (top() + row) * p.grid_w + left() + column; }

  __device__ const T* query_bias() const { return static_cast<const T*>(p.qkv_bias) + blockIdx.y * HeadDim; }
  // Of the image and this head: the query of token 0, and the same in the results.
  __device__ const T* qkv() const {
    return static_cast<const T*>(p.qkv) + first_token() * 3 * p.part_stride + blockIdx.y * HeadDim;
  }
  __device__ T* out() const { return static_cast<T*>(p.out) + first_token() * p.part_stride + blockIdx.y * HeadDim; }

  // What was made of the block's place is made again behind this: the loop over the keys has no registers for it.
  __device__ void forget() {
    block_x_ = blockIdx.x, block_z_ = blockIdx.z;
    make_opaque(block_x_);
    make_opaque(block_z_);
  }

  const AttentionParameters& p;

 private:
  __device__ int first_tile() const { return block_x_ * (Queries / 16); }
  // Of the image, in the batch.
  __device__ int64_t first_token() const { return int64_t{block_z_ / p.windows} * p.grid_h * p.grid_w; }

  __device__ int top() const { return block_z_ % p.windows / p.windows_across * p.side_h; }
  __device__ int left() const { return block_z_ % p.windows % p.windows_across * p.side_w; }

  int block_x_, block_z_;
  int rows_, columns_;  // of the window that are in the grid
};

}  // namespace samrt
