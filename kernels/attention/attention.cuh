// Fused attention with SAM's decomposed relative position. docs/kernels.md draws it.
//
//   scores[q, k] = scale * q.k + rel_h[q, kh] + rel_w[q, kw],  rel_h = q.table_h[qh - kh + H - 1],  rel_w alike
//
// A FlashAttention-2 style kernel: a block keeps 16-row tiles of queries in registers, or in shared memory where those are
// needed otherwise, and visits key tiles of whole grid rows, with a running maximum and sum. The bias is nearly free
// because of how tokens are numbered here:
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
#include "copies.cuh"

namespace samrt {

// The work of one block: one head of one window (or of the whole grid) of one image, for some of its queries.
template <typename T, int HeadDim, int Tile, bool RelPos>
class AttentionBlock {
  using L = Layout<T, HeadDim, Tile>;
  static constexpr int kQueries = L::kQueries, kRowTiles = L::kRowTiles, kTermStride = L::kTermStride;
  static constexpr int kKeys = L::kKeys, kKeyRows = L::kKeyRows, kKeyColumns = L::kKeyColumns, kStages = L::kStages;
  static constexpr int kSteps = HeadDim / 16;  // of the product of a query and a key
  static constexpr int kColumnBlocks = kKeyColumns / 8, kKeyBlocks = kKeys / 8, kOutBlocks = HeadDim / 8;
  static constexpr bool kKeepQueries = L::kKeepQueries;
  // Row terms are computed with so many rows of their table at a time.
  static constexpr int kTermRows = 32;
  static_assert(L::kPieceRows >= kTermRows && kOutBlocks % 2 == 0);

 public:
  __device__ explicit AttentionBlock(const AttentionParameters& p)
      : p_(p),
        copies_(p),
        warp_(threadIdx.x / 32),
        lane_(threadIdx.x % 32),
        chunks_by_8_(row_by_8(), half_by_8()),
        chunks_by_16_(lane_ % 16, lane_ / 16) {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) maximum_[i][0] = maximum_[i][1] = -INFINITY;
  }

  __device__ void run() {
    // All that is needed before the first keys, in one go.
    copies_.begin_queries();
    if constexpr (RelPos) {
      copies_.begin_column_table(0);
      copies_.begin_row_table(0);
    }
    copies_.wait_for_all();
    if constexpr (kKeepQueries) take_queries();
    compute_column_terms<true>(0);
    begin_strip(0);
    if constexpr (RelPos) compute_row_terms();
    for (int first_column = 0;;) {  // strips of kKeyColumns columns of keys
      for (int step = 0; step < row_steps(); ++step) {
        copy_async_wait<kStages - 2>();
        // This tile has come for all, and all have left the one before, whose place the next copy takes.
        __syncthreads();
        const int next = step + kStages - 1;
        if (next < row_steps()) copies_.begin_tile(next * kKeyRows, next % kStages);
        copy_async_commit();
        visit(step * kKeyRows, L::key_tile(step % kStages), L::value_tile(step % kStages));
      }
      copies_.wait_for_all();  // empty groups; the ring is free again
      first_column = copies_.forget();
      if (first_column >= p_.side_w) break;
      if constexpr (RelPos) {
        copies_.begin_column_table(first_column);
        copies_.wait_for_all();
      }
      compute_column_terms<false>(first_column);
      begin_strip(first_column);
    }
    store();
  }

 private:
  __device__ int row_steps() const { return (p_.side_h + kKeyRows - 1) / kKeyRows; }
  // Lane l names row l%8 of matrix l/8 to ldmatrix. Keys come as two blocks of eight rows and 16 columns, queries and
  // values as 16 rows and 16 columns: the row among 16, and which half of the columns.
  __device__ int row_by_8() const { return lane_ % 8 + lane_ / 16 * 8; }
  __device__ int half_by_8() const { return lane_ / 8 % 2; }

  // The first tiles of a strip of columns: all stages but one, each a group of copies.
  __device__ void begin_strip(int first_column) {
    __syncthreads();  // the places of queries and column table are free
    copies_.begin_strip(first_column);
#pragma unroll
    for (int stage = 0; stage < kStages - 1; ++stage) {
      if (stage < row_steps()) copies_.begin_tile(stage * kKeyRows, stage);
      copy_async_commit();
    }
  }

  __device__ void take_queries() {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) load_query(i, step, queries_[i][step]);
    }
  }

  // This warp's queries of a row tile from shared memory, as the left operand of a step.
  __device__ void load_query(int i, int step, uint32_t (&a)[4]) const {
    const T* of_warp = L::queries() + warp_ * kRowTiles * 16 * HeadDim;
    load_matrices(a, chunks_by_16_.at(of_warp, step, i * 16));
  }

  // scores[i][b] += queries[first_tile + i] * (rows 8b to 8b + 7)^T for so many row tiles. `chunks` are those of this
  // lane's row among the first 16, row_by_8(); with Direction -1 rows are counted down from there. Each is loaded from
  // shared memory once.
  template <int Tiles, int Direction, bool Unroll, int Blocks>
  __device__ void multiply_rows(float (*scores)[Blocks][4], int first_tile, const T* rows, LaneChunks<HeadDim> chunks) {
#pragma unroll(Unroll ? kSteps : 1)
    for (int step = 0; step < kSteps; ++step) {
      uint32_t a[Tiles][4];
#pragma unroll
      for (int i = 0; i < Tiles; ++i) {
        if constexpr (kKeepQueries) {
#pragma unroll
          for (int j = 0; j < 4; ++j) a[i][j] = queries_[first_tile + i][step][j];
        } else {
          load_query(first_tile + i, step, a[i]);
        }
      }
#pragma unroll
      for (int pair = 0; pair < Blocks / 2; ++pair) {
        uint32_t b[4];
        load_matrices(b, chunks.at(rows, step, Direction * pair * 16));
#pragma unroll
        for (int i = 0; i < Tiles; ++i) {
          multiply_add<T>(scores[i][2 * pair], a[i], b[0], b[1]);
          multiply_add<T>(scores[i][2 * pair + 1], a[i], b[2], b[3]);
        }
      }
    }
  }

  // The row terms of this block's queries and all key rows, over the scale.
  __device__ void compute_row_terms() {
    for (int i = p_.side_h * kTermStride + threadIdx.x; i < row_steps() * kKeyRows * kTermStride; i += L::kThreads) {
      L::row_terms()[i] = -INFINITY;
    }
    // Table row qh - kh + side_h - 1 belongs to key row kh; of these rows the warp's queries have use for a part.
    int least = copies_.place.first_row_of(warp_ * kRowTiles), most = least;
#pragma unroll
    for (int i = 1; i < kRowTiles; ++i) {
      const int first_row = copies_.place.first_row_of(warp_ * kRowTiles + i);
      least = first_row < least ? first_row : least;
      most = first_row > most ? first_row : most;
    }
    for (int first = 0; first < 2 * p_.side_h - 1; first += L::kPieceRows) {
      if (first > 0) {
        __syncthreads();
        copies_.begin_row_table(first);
        copies_.wait_for_all();
      }
      const int begin = least > first ? least - first : 0, end = most + 15 + p_.side_h - first;
      for (int row = begin; row < (end < L::kPieceRows ? end : L::kPieceRows); row += kTermRows) {
        // The last rows of a piece may be taken twice.
        compute_row_terms(first, row + kTermRows < L::kPieceRows ? row : L::kPieceRows - kTermRows);
      }
    }
  }

  // With kTermRows rows of the piece in the ring, from `row` on.
  __device__ void compute_row_terms(int first, int row) {
    float products[kRowTiles][kTermRows / 8][4] = {};
    multiply_rows<kRowTiles, 1, true>(products, 0, L::row_table() + row * HeadDim, chunks_by_8_);
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
      const int tile = warp_ * kRowTiles + i;
#pragma unroll
      for (int element = 0; element < kTermRows / 2; ++element) {
        const int block = element / 4, j = element % 4, query = lane_ / 4 + j / 2 * 8;
        const int table_row = first + row + block * 8 + lane_ % 4 * 2 + j % 2;
        const int key_row = copies_.place.first_row_of(tile) + query + p_.side_h - 1 - table_row;
        if (key_row >= 0 && key_row < p_.side_h) {
          L::row_terms()[key_row * kTermStride + tile * 16 + query] = products[i][block][j] * p_.inverse_scale;
        }
      }
    }
  }

  // What the scores of every tile in this strip of columns start from: the column terms over the scale, and -infinity
  // past the edge. `First`: there are no results yet, and so registers for all loads at once.
  template <bool First>
  __device__ void compute_column_terms(int first_column) {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int element = 0; element < 4 * kColumnBlocks; ++element) column_terms_[i][element / 4][element % 4] = 0.f;
      if constexpr (RelPos) {
        // The table's rows fall as kw rises.
        const int last = copies_.place.column_of(warp_ * kRowTiles + i) - copies_.place.column_of(0) + kKeyColumns - 1;
        const LaneChunks<HeadDim> chunks(last - row_by_8(), half_by_8());
        multiply_rows<1, -1, First || kKeepQueries>(&column_terms_[i], i, L::column_table(first_column), chunks);
      }
#pragma unroll
      for (int element = 0; element < 4 * kColumnBlocks; ++element) {
        const int block = element / 4, j = element % 4;
        float& term = column_terms_[i][block][j];
        const bool inside = first_column + block * 8 + lane_ % 4 * 2 + j % 2 < p_.side_w;
        term = inside ? term * p_.inverse_scale : -INFINITY;
      }
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
    multiply_rows<kRowTiles, 1, true>(scores, 0, keys, chunks_by_8_);
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) to_weights(scores[i], i, first_row);
    add_values(scores, values);
  }

  // The running softmax, in results.cuh.
  __device__ void to_weights(float (&scores)[kKeyBlocks][4], int i, int first_row);
  __device__ void rescale(int i, const float (&maximum)[2]);
  __device__ float row_term_of(int key_row, int query) const;
  __device__ void add_values(const float (&weights)[kRowTiles][kKeyBlocks][4], const T* values);
  __device__ void store();

  const AttentionParameters& p_;
  Copies<T, HeadDim, Tile> copies_;
  int warp_, lane_;
  LaneChunks<HeadDim> chunks_by_8_, chunks_by_16_;
  uint32_t queries_[kKeepQueries ? kRowTiles : 1][kSteps][4];
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
  const int row_tiles = parameters.tiles_per_column * parameters.side_w, per_block = kShape.queries() / 16;
  const dim3 grid((row_tiles + per_block - 1) / per_block, parameters.heads, parameters.batch * parameters.windows);
  return launch(attention_kernel<T, HeadDim, Tile, RelPos>, grid, dim3(kShape.threads()),
                kShape.shared_bytes(HeadDim, parameters.side_h), stream, parameters);
}

}  // namespace samrt

#include "results.cuh"  // the rest of AttentionBlock
