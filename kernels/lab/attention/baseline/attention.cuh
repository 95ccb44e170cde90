// Fused attention with SAM's decomposed relative position. docs/kernels.md draws it.
//
//   scores[q, k] = scale * q.k + rel_h[q, kh] + rel_w[q, kw],  rel_h = q.table_h[qh - kh + H - 1],  rel_w alike
//
// A FlashAttention-2 style kernel: a block keeps 16-row tiles of queries in registers and visits key tiles of whole grid
// rows, with a running maximum and sum. The bias is nearly free because of how tokens are numbered here:
//
// - the 16 queries of a row tile lie in one *column* of the grid. Their column terms rel_w[q, kw] are then one product of
//   the queries with a run of table rows, computed like scores; every key tile *starts its scores from them*.
// - the row terms rel_h[q, kh] are one number per query and key row: a small table in shared memory, read where the row
//   maximum is taken and where it is subtracted.
//
// A key column past the grid's edge has -infinity for its column term, a key row past it for its row term; so any grid
// and any window works with any tile. Windows are addressing: what lies in a window but outside the grid reads the bias
// of the qkv projection instead.
#pragma once

#include <cmath>

#include "../common/device.cuh"
#include "../common/elements.cuh"
#include "../common/launch.cuh"
#include "attention_launch.h"

namespace samrt {

constexpr float kLog2E = 1.4426950408889634f;

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

// The work of one block: one head of one window (or of the whole grid) of one image, for some of its queries.
template <typename T, int HeadDim, int Tile, bool RelPos>
class AttentionBlock {
  static constexpr TileShape kShape = kTileShapes[Tile];
  static constexpr int kThreads = kShape.threads(), kQueries = kShape.queries(), kKeys = kShape.keys();
  static constexpr int kRowTiles = kShape.row_tiles, kKeyRows = kShape.key_rows, kKeyColumns = kShape.key_columns;
  static constexpr int kStages = kShape.stages, kRingRows = kShape.ring_rows();
  static constexpr int kChunks = HeadDim / 8;    // 16-byte chunks per row
  static constexpr int kSteps = HeadDim / 16;    // of the product of a query and a key
  static constexpr int kColumnBlocks = kKeyColumns / 8, kKeyBlocks = kKeys / 8, kOutBlocks = HeadDim / 8;
  // In copies each thread has one chunk, of every kCopyRows-th row; of 10 chunks, some threads have none.
  static constexpr int kCopyRows = kThreads / kChunks, kCopies = (kKeys + kCopyRows - 1) / kCopyRows;
  static_assert(kKeyColumns % 16 == 0 && kQueries <= kRingRows && kOutBlocks % 2 == 0);
  // The table rows that the queries of a block need for one strip of columns: a run for each grid column among them.
  static_assert(kKeyColumns + kQueries / 16 - 1 <= kRingRows);

 public:
  __device__ explicit AttentionBlock(const AttentionParameters& p) : p_(p) {
    ring_ = reinterpret_cast<T*>(dynamic_shared());

    const int image = blockIdx.z / p.windows, window = blockIdx.z % p.windows, head = blockIdx.y;
    qkv_ = static_cast<const T*>(p.qkv) + int64_t{image} * p.grid_h * p.grid_w * 3 * part_stride() + head * HeadDim;
    top_ = window / p.windows_across * p.side_h;
    left_ = window % p.windows_across * p.side_w;
    warp_ = threadIdx.x / 32;
    lane_ = threadIdx.x % 32;
    // Past the last whole row of chunks: no row is that far.
    copy_row_ = threadIdx.x < kCopyRows * kChunks ? threadIdx.x / kChunks : kRingRows;
    copy_chunk_ = threadIdx.x % kChunks;
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) maximum_[i][0] = maximum_[i][1] = -INFINITY;
  }

  __device__ void run() {
    load_queries();
    if constexpr (RelPos) compute_row_terms();
    for (int first_column = 0; first_column < p_.side_w; first_column += kKeyColumns) {
      compute_column_terms(first_column);
#pragma unroll
      for (int stage = 0; stage < kStages - 1; ++stage) {
        if (stage < row_steps()) copy_keys_and_values(stage * kKeyRows, first_column, stage);
        copy_async_commit();
      }
      for (int step = 0; step < row_steps(); ++step) {
        copy_async_wait<kStages - 2>();
        // This tile has come for all, and all have left the one before, whose place the next copy takes.
        __syncthreads();
        const int next = step + kStages - 1;
        if (next < row_steps()) copy_keys_and_values(next * kKeyRows, first_column, next % kStages);
        copy_async_commit();
        visit(step * kKeyRows, key_tile(step % kStages), value_tile(step % kStages));
      }
      copy_async_wait<0>();  // empty groups; what follows counts its own
      __syncthreads();       // the ring is free again
    }
    store();
  }

 private:
  // One number per key row and query: row_terms()[kh * kQueries + query].
  __device__ float* row_terms() const { return reinterpret_cast<float*>(ring_ + kRingRows * HeadDim); }
  __device__ T* key_tile(int stage) { return ring_ + stage * 2 * kKeys * HeadDim; }
  __device__ T* value_tile(int stage) { return key_tile(stage) + kKeys * HeadDim; }

  __device__ int row_steps() const { return (p_.side_h + kKeyRows - 1) / kKeyRows; }
  __device__ int tiles_per_column() const { return (p_.side_h + 15) / 16; }
  // The place of a row tile of this block, counted through the block: its column and first row in the window.
  __device__ int column_of(int tile) const { return tile_in_window(tile) / tiles_per_column(); }
  __device__ int first_row_of(int tile) const { return tile_in_window(tile) % tiles_per_column() * 16; }
  __device__ int tile_in_window(int tile) const { return blockIdx.x * (kQueries / 16) + tile; }

  __device__ bool in_window(int row, int column) const { return row < p_.side_h && column < p_.side_w; }
  __device__ bool in_grid(int row, int column) const { return top_ + row < p_.grid_h && left_ + column < p_.grid_w; }
  // Of the token at (row, column) of the window, counted through the image; it must be in the grid.
  __device__ int token(int row, int column) const { return (top_ + row) * p_.grid_w + left_ + column; }
  // Elements from a token's query to its key, and on to its value; a third of those to the next token.
  __device__ int part_stride() const { return p_.heads * HeadDim; }
  __device__ const T* query_bias() const { return static_cast<const T*>(p_.qkv_bias) + blockIdx.y * HeadDim; }
  __device__ const T* query_of(int token) const { return qkv_ + token * 3 * part_stride(); }

  // Copy `rows` rows of HeadDim elements into the ring; `source(row)` is the first element, nullptr for zeros.
  template <typename Source>
  __device__ void copy_rows(int rows, Source source) {
    for (int row = copy_row_; row < rows; row += kCopyRows) {
      const T* from = source(row);
      const int place = swizzled<HeadDim>(row, copy_chunk_);
      copy_async_16(ring_ + place, from ? from + copy_chunk_ * 8 : qkv_, from != nullptr);
    }
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
  }

  // Queries into registers, as the left operand. Those outside the window or the grid are zero: nobody reads them.
  __device__ void load_queries() {
    copy_rows(kQueries, [this](int query) -> const T* {
      const int column = column_of(query / 16), row = first_row_of(query / 16) + query % 16;
      return in_window(row, column) && in_grid(row, column) ? query_of(token(row, column)) : nullptr;
    });
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
      const int row = (warp_ * kRowTiles + i) * 16 + lane_ % 16;
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        load_matrices(queries_[i][step], ring_ + swizzled<HeadDim>(row, 2 * step + lane_ / 16));
      }
    }
    __syncthreads();
  }

  // scores[i][b] += queries[i] * (rows 8b to 8b + 7)^T for so many row tiles; `row_of(n)` is where row n lies in `rows`.
  // Each row is loaded from shared memory once.
  template <int Tiles, int Blocks, typename RowOf>
  __device__ void multiply_rows(float (*scores)[Blocks][4], const uint32_t (*queries)[kSteps][4], const T* rows,
                                RowOf row_of) {
    // One load brings two blocks of eight rows and 16 columns: lane l names row l%8 of matrix l/8.
    const int matrix = lane_ / 8;
    const int row_in_pair = lane_ % 8 + matrix / 2 * 8, half_step = matrix % 2;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int pair = 0; pair < Blocks / 2; ++pair) {
        uint32_t b[4];
        load_matrices(b, rows + swizzled<HeadDim>(row_of(pair * 16 + row_in_pair), 2 * step + half_step));
#pragma unroll
        for (int i = 0; i < Tiles; ++i) {
          multiply_add<T>(scores[i][2 * pair], queries[i][step], b[0], b[1]);
          multiply_add<T>(scores[i][2 * pair + 1], queries[i][step], b[2], b[3]);
        }
      }
    }
  }

  // The row terms of all queries of this block and all key rows, over the scale.
  __device__ void compute_row_terms() {
    const T* table = static_cast<const T*>(p_.rel_pos_h);
    const int table_rows = 2 * p_.side_h - 1;
    for (int i = p_.side_h * kQueries + threadIdx.x; i < row_steps() * kKeyRows * kQueries; i += kThreads) {
      row_terms()[i] = -INFINITY;
    }
    for (int first = 0; first < table_rows; first += kKeys) {
      copy_rows(kKeys, [&](int row) { return first + row < table_rows ? table + (first + row) * HeadDim : nullptr; });
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) {
        float products[1][kKeyBlocks][4] = {};
        multiply_rows<1>(products, &queries_[i], ring_, [](int n) { return n; });
        const int tile = warp_ * kRowTiles + i;
#pragma unroll
        for (int element = 0; element < 4 * kKeyBlocks; ++element) {
          const int block = element / 4, j = element % 4;
          const int row = lane_ / 4 + j / 2 * 8;
          // Table row qh - kh + side_h - 1 belongs to key row kh.
          const int key_row = first_row_of(tile) + row + p_.side_h - 1 - (first + block * 8 + lane_ % 4 * 2 + j % 2);
          if (key_row >= 0 && key_row < p_.side_h) {
            row_terms()[key_row * kQueries + tile * 16 + row] = products[0][block][j] * p_.inverse_scale;
          }
        }
      }
      __syncthreads();
    }
  }

  // What the scores of every tile in this strip of columns start from: the column terms over the scale, and -infinity
  // past the edge.
  __device__ void compute_column_terms(int first_column) {
    if constexpr (RelPos) {
      // Table row qw - kw + side_w - 1, for kw from first_column: it falls as kw rises. Staged from the least on.
      const T* table = static_cast<const T*>(p_.rel_pos_w);
      const int table_rows = 2 * p_.side_w - 1;
      const int least = column_of(0) - (first_column + kKeyColumns - 1) + p_.side_w - 1;
      const int columns = column_of(kQueries / 16 - 1) - column_of(0);
      copy_rows(kKeyColumns + columns, [&](int row) {
        return least + row >= 0 && least + row < table_rows ? table + (least + row) * HeadDim : nullptr;
      });
    }
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int element = 0; element < 4 * kColumnBlocks; ++element) column_terms_[i][element / 4][element % 4] = 0.f;
      if constexpr (RelPos) {
        const int last = column_of(warp_ * kRowTiles + i) - column_of(0) + kKeyColumns - 1;
        multiply_rows<1>(&column_terms_[i], &queries_[i], ring_, [last](int n) { return last - n; });
      }
#pragma unroll
      for (int element = 0; element < 4 * kColumnBlocks; ++element) {
        const int block = element / 4, j = element % 4;
        float& term = column_terms_[i][block][j];
        const bool inside = first_column + block * 8 + lane_ % 4 * 2 + j % 2 < p_.side_w;
        term = inside ? term * p_.inverse_scale : -INFINITY;
      }
    }
    __syncthreads();
  }

  // The tile of the key rows from `first_row` on and this strip's columns into a stage of the ring.
  __device__ void copy_keys_and_values(int first_row, int first_column, int stage) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int key = copy_row_ + i * kCopyRows;
      if ((kKeys % kCopyRows || kThreads % kChunks) && key >= kKeys) break;
      const int row = first_row + key / kKeyColumns, column = first_column + key % kKeyColumns;
      const bool valid = in_window(row, column);
      const T* from = in_grid(row, column) ? query_of(token(row, column)) : query_bias();
      from += part_stride() + copy_chunk_ * 8;
      const int place = swizzled<HeadDim>(key, copy_chunk_);
      copy_async_16(key_tile(stage) + place, valid ? from : qkv_, valid);
      copy_async_16(value_tile(stage) + place, valid ? from + part_stride() : qkv_, valid);
    }
  }

  // Take the tile of keys whose first row is `first_row` into the running results.
  __device__ void visit(int first_row, const T* keys, const T* values) {
    float scores[kRowTiles][kKeyBlocks][4];
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int element = 0; element < 4 * kKeyBlocks; ++element) {
        const int block = element / 4, j = element % 4;
        scores[i][block][j] = column_terms_[i][block % kColumnBlocks][j];
      }
    }
    multiply_rows<kRowTiles>(scores, queries_, keys, [](int n) { return n; });
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) to_weights(scores[i], i, half, first_row);
    }
    add_values(scores, values);
  }

  // Scores to unnormalised softmax weights, for the rows lane/4 + 8 * half of a row tile; earlier results are rescaled.
  __device__ void to_weights(float (&scores)[kKeyBlocks][4], int i, int half, int first_row) {
    float row_term[kKeyRows];
    float maximum = maximum_[i][half];
#pragma unroll
    for (int r = 0; r < kKeyRows; ++r) {
      row_term[r] = row_term_of(first_row + r, (warp_ * kRowTiles + i) * 16 + lane_ / 4 + 8 * half);
      float of_row = -INFINITY;
#pragma unroll
      for (int element = 0; element < 2 * kColumnBlocks; ++element) {
        of_row = fmaxf(of_row, scores[r * kColumnBlocks + element / 2][2 * half + element % 2]);
      }
      maximum = fmaxf(maximum, of_row + row_term[r]);
    }
    // The four lanes of a row.
    maximum = fmaxf(maximum, __shfl_xor_sync(kFullWarp, maximum, 1));
    maximum = fmaxf(maximum, __shfl_xor_sync(kFullWarp, maximum, 2));

    const float rescale = exp2_approximate((maximum_[i][half] - maximum) * p_.scale_log2);
    maximum_[i][half] = maximum;
    float sum = sum_[i][half] * rescale;
#pragma unroll
    for (int r = 0; r < kKeyRows; ++r) {
      const float subtract = (maximum - row_term[r]) * p_.scale_log2;
#pragma unroll
      for (int element = 0; element < 2 * kColumnBlocks; ++element) {
        float& score = scores[r * kColumnBlocks + element / 2][2 * half + element % 2];
        score = exp2_approximate(fmaf(score, p_.scale_log2, -subtract));
        sum += score;
      }
    }
    sum_[i][half] = sum;
#pragma unroll
    for (int block = 0; block < kOutBlocks; ++block) {
      results_[i][block][2 * half] *= rescale;
      results_[i][block][2 * half + 1] *= rescale;
    }
  }

  __device__ float row_term_of(int key_row, int query) const {
    if constexpr (RelPos) return row_terms()[key_row * kQueries + query];
    return key_row < p_.side_h ? 0.f : -INFINITY;
  }

  // results += weights * values. The scores' fragments are the left operand's, two blocks to one step.
  __device__ void add_values(const float (&weights)[kRowTiles][kKeyBlocks][4], const T* values) {
#pragma unroll
    for (int step = 0; step < kKeyBlocks / 2; ++step) {
      uint32_t a[kRowTiles][4];
#pragma unroll
      for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float(&pair)[4] = weights[i][2 * step + j / 2];
          a[i][j] = Element<T>::pack(pair[j % 2 * 2], pair[j % 2 * 2 + 1]);
        }
      }
#pragma unroll
      for (int pair = 0; pair < kOutBlocks / 2; ++pair) {
        // Lane l names key l%16 and, in its chunk pair, the chunk l/16.
        uint32_t b[4];
        load_matrices_transposed(b, values + swizzled<HeadDim>(step * 16 + lane_ % 16, 2 * pair + lane_ / 16));
#pragma unroll
        for (int i = 0; i < kRowTiles; ++i) {
          multiply_add<T>(results_[i][2 * pair], a[i], b[0], b[1]);
          multiply_add<T>(results_[i][2 * pair + 1], a[i], b[2], b[3]);
        }
      }
    }
  }

  // Results over their sums, by way of the ring, so that they leave in 16-byte pieces. Each warp stores its own rows.
  __device__ void store() {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float sum = sum_[i][half];
        sum += __shfl_xor_sync(kFullWarp, sum, 1);
        sum += __shfl_xor_sync(kFullWarp, sum, 2);
        const float inverse = 1.f / sum;
        const int row = (warp_ * kRowTiles + i) * 16 + lane_ / 4 + 8 * half;
#pragma unroll
        for (int block = 0; block < kOutBlocks; ++block) {
          const float* pair = &results_[i][block][2 * half];
          const uint32_t packed = Element<T>::pack(pair[0] * inverse, pair[1] * inverse);
          memcpy(ring_ + swizzled<HeadDim>(row, block) + lane_ % 4 * 2, &packed, sizeof packed);
        }
      }
    }
    __syncwarp();
    // Made here: in the loop over the keys registers are dear.
    T* out = static_cast<T*>(p_.out) + blockIdx.y * HeadDim +
             int64_t{static_cast<int>(blockIdx.z) / p_.windows} * p_.grid_h * p_.grid_w * part_stride();
    constexpr int kRows = 16 * kRowTiles;
    for (int i = lane_; i < kRows * kChunks; i += 32) {
      const int query = warp_ * kRows + i / kChunks, chunk = i % kChunks;
      const int column = column_of(query / 16), row = first_row_of(query / 16) + query % 16;
      if (!in_window(row, column) || !in_grid(row, column)) continue;
      const uint4 piece = *reinterpret_cast<const uint4*>(ring_ + swizzled<HeadDim>(query, chunk));
      *reinterpret_cast<uint4*>(out + token(row, column) * part_stride() + chunk * 8) = piece;
    }
  }

  const AttentionParameters& p_;
  const T* qkv_;    // of the image, this head's query of token 0
  int top_, left_;  // of the window, in the grid
  T* ring_;
  int warp_, lane_;
  int copy_row_, copy_chunk_;
  uint32_t queries_[kRowTiles][kSteps][4];
  float column_terms_[kRowTiles][kColumnBlocks][4];
  float results_[kRowTiles][kOutBlocks][4] = {};
  float sum_[kRowTiles][2] = {};
  float maximum_[kRowTiles][2];
};

template <typename T, int HeadDim, int Tile, bool RelPos>
__global__ void __launch_bounds__(kTileShapes[Tile].threads(), kTileShapes[Tile].blocks(HeadDim))
    attention_kernel(const AttentionParameters parameters) {
  AttentionBlock<T, HeadDim, Tile, RelPos>(parameters).run();
}

template <typename T, int HeadDim, int Tile, bool RelPos>
cudaError_t launch_attention(const AttentionParameters& parameters, cudaStream_t stream) {
  constexpr TileShape kShape = kTileShapes[Tile];
  const int row_tiles = (parameters.side_h + 15) / 16 * parameters.side_w, per_block = kShape.queries() / 16;
  const dim3 grid((row_tiles + per_block - 1) / per_block, parameters.heads, parameters.batch * parameters.windows);
  return launch(attention_kernel<T, HeadDim, Tile, RelPos>, grid, dim3(kShape.threads()),
                kShape.shared_bytes(HeadDim, parameters.side_h), stream, parameters);
}

}  // namespace samrt
