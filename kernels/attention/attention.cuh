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
#include <type_traits>

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

// The work of one block: one head of one window (or of the whole grid) of one image, for some of its queries.
template <typename T, int HeadDim, int Tile, bool RelPos>
class AttentionBlock {
  static constexpr TileShape kShape = kTileShapes[Tile];
  static constexpr int kThreads = kShape.threads(), kQueries = kShape.queries(), kKeys = kShape.keys();
  static constexpr int kRowTiles = kShape.row_tiles, kKeyRows = kShape.key_rows, kKeyColumns = kShape.key_columns;
  static constexpr bool kKeepQueries = !kShape.queries_in_shared;  // in registers
  static constexpr int kStages = kShape.stages, kRingRows = kShape.ring_rows();
  static constexpr int kChunks = HeadDim / 8;    // 16-byte chunks per row
  static constexpr int kSteps = HeadDim / 16;    // of the product of a query and a key
  static constexpr int kColumnBlocks = kKeyColumns / 8, kKeyBlocks = kKeys / 8, kOutBlocks = HeadDim / 8;
  // In copies each thread has one chunk, of every kCopyRows-th row, or none. A power of two: the swizzle repeats after
  // eight rows, and rows of the grid begin where those of a tile do.
  static constexpr int kCopyRows = kThreads < 16 * kChunks ? 8 : kThreads < 32 * kChunks ? 16 : 32;
  static constexpr int kCopies = kKeys / kCopyRows;
  static_assert(kThreads >= 8 * kChunks && kKeyColumns % kCopyRows == 0);
  // How far scores may pass the maximum that is subtracted before results are rescaled to another: weights then grow up to
  // 2^8. fp16 has no values that make a sum of such weights overflow float32, bf16 does.
  static constexpr float kSlack = std::is_same_v<T, __half> ? 8 / kLog2E : 0;
  static_assert(kKeyColumns % 16 == 0 && kQueries <= kRingRows && kOutBlocks % 2 == 0);
  // The table for row terms has the rest of the ring, beside the queries at first, then beside the first keys and values.
  static constexpr int kFirstPieceRow = kShape.first_piece_row(), kPieceRows = kRingRows - kFirstPieceRow;
  static constexpr int kTermRows = 32, kTermStride = kShape.term_stride();
  static_assert(kPieceRows >= kTermRows && kPieceRows % 16 == 0 && kShape.column_table_rows() <= kRingRows);

 public:
  __device__ explicit AttentionBlock(const AttentionParameters& p)
      : p_(p),
        warp_(threadIdx.x / 32),
        lane_(threadIdx.x % 32),
        chunks_by_8_(row_by_8(), half_by_8()),
        chunks_by_16_(lane_ % 16, lane_ / 16) {
    ring_ = reinterpret_cast<T*>(dynamic_shared());

    const int image = blockIdx.z / p.windows, window = blockIdx.z % p.windows, head = blockIdx.y;
    qkv_ = static_cast<const T*>(p.qkv) + int64_t{image} * p.grid_h * p.grid_w * 3 * part_stride() + head * HeadDim;
    first_tile_ = blockIdx.x * (kQueries / 16);
    tiles_per_column_ = (p.side_h + 15) / 16;
    top_ = window / p.windows_across * p.side_h;
    left_ = window % p.windows_across * p.side_w;
    inside_ = top_ + p.side_h <= p.grid_h && left_ + p.side_w <= p.grid_w;
    make_opaque(inside_);
    // Past the last whole row of chunks: no row is that far.
    copy_row_ = threadIdx.x < kCopyRows * kChunks ? threadIdx.x / kChunks : kRingRows;
    copy_chunk_ = threadIdx.x % kChunks;
    copy_place_ = swizzled<HeadDim>(copy_row_, copy_chunk_);
    make_opaque(copy_place_);
    row_step_ = p.grid_w * 3u * part_stride();
    copy_step_ = kCopyRows * 3u * part_stride();
    make_opaque(copy_step_);
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) maximum_[i][0] = maximum_[i][1] = -INFINITY;
  }

  __device__ void run() {
    // All that is needed before the first keys, in one go.
    begin_queries();
    begin_column_table(0);
    begin_row_table(0);
    wait_for_all();
    if constexpr (kKeepQueries) take_queries();
    compute_column_terms<true>(0);
    begin_strip(0);
    compute_row_terms();
    for (int first_column = 0;;) {  // strips of kKeyColumns columns of keys
      for (int step = 0; step < row_steps(); ++step) {
        copy_async_wait<kStages - 2>();
        // This tile has come for all, and all have left the one before, whose place the next copy takes.
        __syncthreads();
        const int next = step + kStages - 1;
        if (next < row_steps()) copy_keys_and_values(next * kKeyRows, first_column, next % kStages);
        copy_async_commit();
        visit(step * kKeyRows, key_tile(step % kStages), value_tile(step % kStages));
      }
      wait_for_all();  // empty groups; the ring is free again
      first_column += kKeyColumns;
      if (first_column >= p_.side_w) break;
      forget_place();
      begin_column_table(first_column);
      wait_for_all();
      compute_column_terms<false>(first_column);
      begin_strip(first_column);
    }
    store();
  }

 private:
  // One number per key row and query: row_terms()[kh * kTermStride + query]. Before that the first strip's column table.
  __device__ float* row_terms() const {
    return reinterpret_cast<float*>(ring_ + (kRingRows + (kKeepQueries ? 0 : kQueries)) * HeadDim);
  }
  // The block's queries: behind the ring, or in it until they are in registers.
  __device__ T* query_rows() const { return ring_ + (kKeepQueries ? 0 : kRingRows * HeadDim); }
  __device__ T* key_tile(int stage) { return ring_ + stage * 2 * kKeys * HeadDim; }
  __device__ T* value_tile(int stage) { return key_tile(stage) + kKeys * HeadDim; }

  __device__ int row_steps() const { return (p_.side_h + kKeyRows - 1) / kKeyRows; }
  // The place of a row tile of this block, counted through the block: its column and first row in the window.
  __device__ int column_of(int tile) const { return tile_in_window(tile) / tiles_per_column_; }
  __device__ int first_row_of(int tile) const { return tile_in_window(tile) % tiles_per_column_ * 16; }
  __device__ int tile_in_window(int tile) const { return first_tile_ + tile; }

  // What was made of the block's place is made again behind this: the loop over the keys has no registers for it.
  __device__ void forget_place() {
    make_opaque(first_tile_);
    make_opaque(tiles_per_column_);
    make_opaque(top_);
  }

  __device__ bool in_window(int row, int column) const { return row < p_.side_h && column < p_.side_w; }
  __device__ bool in_grid(int row, int column) const { return top_ + row < p_.grid_h && left_ + column < p_.grid_w; }
  // Lane l names row l%8 of matrix l/8 to ldmatrix. Keys come as two blocks of eight rows and 16 columns, queries and
  // values as 16 rows and 16 columns: the row among 16, and which half of the columns.
  __device__ int row_by_8() const { return lane_ % 8 + lane_ / 16 * 8; }
  __device__ int half_by_8() const { return lane_ / 8 % 2; }
  // Of the token at (row, column) of the window, counted through the image; it must be in the grid.
  __device__ int token(int row, int column) const { return (top_ + row) * p_.grid_w + left_ + column; }
  // Elements from a token's query to its key, and on to its value; a third of those to the next token.
  __device__ int part_stride() const { return p_.heads * HeadDim; }
  __device__ const T* query_bias() const { return static_cast<const T*>(p_.qkv_bias) + blockIdx.y * HeadDim; }
  __device__ const T* query_of(int token) const { return qkv_ + token * 3 * part_stride(); }

  // Begin to copy `rows` rows of HeadDim elements to `place`; `source(row)` is the first element, nullptr for zeros.
  template <typename Source>
  __device__ void begin_rows(T* place, int rows, Source source) {
#pragma unroll 1
    for (int row = copy_row_; row < rows; row += kCopyRows) {
      const T* from = source(row);
      copy_async_16(place + swizzled<HeadDim>(row, copy_chunk_), from ? from + copy_chunk_ * 8 : qkv_, from != nullptr);
    }
  }

  __device__ void wait_for_all() {
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
  }

  // Queries outside the window or the grid are zero: nobody reads their results.
  __device__ void begin_queries() {
    begin_rows(query_rows(), kQueries, [this](int query) -> const T* {
      const int column = column_of(query / 16), row = first_row_of(query / 16) + query % 16;
      return in_window(row, column) && in_grid(row, column) ? query_of(token(row, column)) : nullptr;
    });
  }

  // Table row qw - kw + side_w - 1 belongs to query column qw and key column kw. From this one on they are staged.
  __device__ int least_column_row(int first_column) const {
    return column_of(0) - (first_column + kKeyColumns - 1) + p_.side_w - 1;
  }

  __device__ T* column_table(int first_column) const {
    return first_column == 0 ? reinterpret_cast<T*>(row_terms()) : ring_;
  }

  __device__ void begin_column_table(int first_column) {
    if constexpr (RelPos) {
      const T* table = static_cast<const T*>(p_.rel_pos_w);
      const int table_rows = 2 * p_.side_w - 1, least = least_column_row(first_column);
      const int columns = column_of(kQueries / 16 - 1) - column_of(0);
      begin_rows(column_table(first_column), kKeyColumns + columns, [&](int row) {
        return least + row >= 0 && least + row < table_rows ? table + (least + row) * HeadDim : nullptr;
      });
    }
  }

  // A piece of the other table, from row `first` on, to the end of the ring.
  __device__ void begin_row_table(int first) {
    if constexpr (RelPos) {
      const T* table = static_cast<const T*>(p_.rel_pos_h);
      const int table_rows = 2 * p_.side_h - 1;
      begin_rows(ring_ + kFirstPieceRow * HeadDim, kPieceRows, [&](int row) {
        return first + row < table_rows ? table + (first + row) * HeadDim : nullptr;
      });
    }
  }

  __device__ void take_queries() {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        load_matrices(queries_[i][step], chunks_by_16_.at(query_rows() + warp_ * kRowTiles * 16 * HeadDim, step, i * 16));
      }
    }
  }

  // This warp's queries of a row tile, as the left operand of a step.
  __device__ void load_query(int i, int step, uint32_t (&a)[4]) const {
    if constexpr (kKeepQueries) {
#pragma unroll
      for (int j = 0; j < 4; ++j) a[j] = queries_[i][step][j];
    } else {
      load_matrices(a, chunks_by_16_.at(query_rows() + warp_ * kRowTiles * 16 * HeadDim, step, i * 16));
    }
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
      for (int i = 0; i < Tiles; ++i) load_query(first_tile + i, step, a[i]);
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
    if constexpr (!RelPos) return;
    for (int i = p_.side_h * kTermStride + threadIdx.x; i < row_steps() * kKeyRows * kTermStride; i += kThreads) {
      row_terms()[i] = -INFINITY;
    }
    // Table row qh - kh + side_h - 1 belongs to key row kh; of these rows the warp's queries have use for a part.
    int least = first_row_of(warp_ * kRowTiles), most = least;
#pragma unroll
    for (int i = 1; i < kRowTiles; ++i) {
      const int first_row = first_row_of(warp_ * kRowTiles + i);
      least = first_row < least ? first_row : least;
      most = first_row > most ? first_row : most;
    }
    for (int first = 0; first < 2 * p_.side_h - 1; first += kPieceRows) {
      if (first > 0) {
        __syncthreads();
        begin_row_table(first);
        wait_for_all();
      }
      const int begin = least > first ? least - first : 0, end = most + 15 + p_.side_h - first;
      for (int row = begin; row < (end < kPieceRows ? end : kPieceRows); row += kTermRows) {
        // The last rows of a piece may be taken twice.
        compute_row_terms(first, row + kTermRows < kPieceRows ? row : kPieceRows - kTermRows);
      }
    }
  }

  // With kTermRows rows of the piece in the ring, from `row` on.
  __device__ void compute_row_terms(int first, int row) {
    float products[kRowTiles][kTermRows / 8][4] = {};
    multiply_rows<kRowTiles, 1, true>(products, 0, ring_ + (kFirstPieceRow + row) * HeadDim, chunks_by_8_);
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
      const int tile = warp_ * kRowTiles + i;
#pragma unroll
      for (int element = 0; element < kTermRows / 2; ++element) {
        const int block = element / 4, j = element % 4, query = lane_ / 4 + j / 2 * 8;
        const int table_row = first + row + block * 8 + lane_ % 4 * 2 + j % 2;
        const int key_row = first_row_of(tile) + query + p_.side_h - 1 - table_row;
        if (key_row >= 0 && key_row < p_.side_h) {
          row_terms()[key_row * kTermStride + tile * 16 + query] = products[i][block][j] * p_.inverse_scale;
        }
      }
    }
  }

  // What the scores of every tile in this strip of columns start from: the column terms over the scale, and -infinity
  // past the edge.
  // `First`: there are no results yet, and so registers for all loads at once.
  template <bool First>
  __device__ void compute_column_terms(int first_column) {
#pragma unroll
    for (int i = 0; i < kRowTiles; ++i) {
#pragma unroll
      for (int element = 0; element < 4 * kColumnBlocks; ++element) column_terms_[i][element / 4][element % 4] = 0.f;
      if constexpr (RelPos) {
        // The table's rows fall as kw rises.
        const int last = column_of(warp_ * kRowTiles + i) - column_of(0) + kKeyColumns - 1;
        multiply_rows<1, -1, First || kKeepQueries>(&column_terms_[i], i, column_table(first_column), {last - row_by_8(), half_by_8()});
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

  // The first tiles of a strip of columns: all stages but one, each a group of copies.
  __device__ void begin_strip(int first_column) {
    const int64_t first = token(0, first_column + copy_row_);
    next_ = qkv_ + (3 * first + 1) * part_stride() + copy_chunk_ * 8;
    __syncthreads();  // the places of queries and column table are free
#pragma unroll
    for (int stage = 0; stage < kStages - 1; ++stage) {
      if (stage < row_steps()) copy_keys_and_values(stage * kKeyRows, first_column, stage);
      copy_async_commit();
    }
  }

  // The next tile of this strip, which begins at `first_row`, into a stage of the ring.
  __device__ void copy_keys_and_values(int first_row, int first_column, int stage) {
    if (kCopyRows * kChunks < kThreads && copy_row_ >= kCopyRows) return;
    if (inside_) {
      copy_tile<true>(first_row, first_column, stage);
    } else {
      copy_tile<false>(first_row, first_column, stage);
    }
    next_ += kKeyRows * row_step_;
  }

  template <bool Inside>
  __device__ void copy_tile(int first_row, int first_column, int stage) {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      constexpr int kPerRow = kKeyColumns / kCopyRows;
      const int row = first_row + i / kPerRow, column = first_column + copy_row_ + i % kPerRow * kCopyRows;
      // The first row of a tile is always in the window. Zeros are not read from anywhere.
      const bool valid = column < p_.side_w && (kKeyRows == 1 || row < p_.side_h);
      const T* from = next_ + (i / kPerRow * row_step_ + i % kPerRow * copy_step_);
      if (!Inside && !in_grid(row, column)) from = query_bias() + part_stride() + copy_chunk_ * 8;
      const int place = copy_place_ + i * kCopyRows * HeadDim;
      copy_async_16(key_tile(stage) + place, from, valid);
      copy_async_16(value_tile(stage) + place, from + part_stride(), valid);
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

  // Scores of a row tile to unnormalised softmax weights, with what was summed before brought to the same maximum.
  __device__ void to_weights(float (&scores)[kKeyBlocks][4], int i, int first_row) {
    float row_term[2][kKeyRows], maximum[2];
    bool grew = false;
#pragma unroll
    for (int half = 0; half < 2; ++half) {  // rows lane/4 and lane/4 + 8
      maximum[half] = maximum_[i][half];
#pragma unroll
      for (int r = 0; r < kKeyRows; ++r) {
        row_term[half][r] = row_term_of(first_row + r, (warp_ * kRowTiles + i) * 16 + lane_ / 4 + 8 * half);
        float of_row = -INFINITY;
#pragma unroll
        for (int element = 0; element < 2 * kColumnBlocks; ++element) {
          of_row = fmaxf(of_row, scores[r * kColumnBlocks + element / 2][2 * half + element % 2]);
        }
        maximum[half] = fmaxf(maximum[half], of_row + row_term[half][r]);
      }
      // The four lanes of a row.
      maximum[half] = fmaxf(maximum[half], __shfl_xor_sync(kFullWarp, maximum[half], 1));
      maximum[half] = fmaxf(maximum[half], __shfl_xor_sync(kFullWarp, maximum[half], 2));
      grew |= maximum[half] > maximum_[i][half] + kSlack * p_.inverse_scale;
    }
    if (__any_sync(kFullWarp, grew)) rescale(i, maximum);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int r = 0; r < kKeyRows; ++r) {
        const float subtract = (maximum_[i][half] - row_term[half][r]) * p_.scale_log2;
#pragma unroll
        for (int element = 0; element < 2 * kColumnBlocks; ++element) {
          float& score = scores[r * kColumnBlocks + element / 2][2 * half + element % 2];
          score = exp2_approximate(fmaf(score, p_.scale_log2, -subtract));
          sum_[i][half] += score;
        }
      }
    }
  }

  // What a row tile summed up to another maximum of its two rows.
  __device__ void rescale(int i, const float (&maximum)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float factor = exp2_approximate((maximum_[i][half] - maximum[half]) * p_.scale_log2);
      maximum_[i][half] = maximum[half];
      sum_[i][half] *= factor;
#pragma unroll
      for (int block = 0; block < kOutBlocks; ++block) {
        results_[i][block][2 * half] *= factor;
        results_[i][block][2 * half + 1] *= factor;
      }
    }
  }

  __device__ float row_term_of(int key_row, int query) const {
    if constexpr (RelPos) return row_terms()[key_row * kTermStride + query];
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
        uint32_t b[4];
        load_matrices_transposed(b, chunks_by_16_.at(values, pair, step * 16));
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
    forget_place();
    T* out = static_cast<T*>(p_.out) + blockIdx.y * HeadDim +
             int64_t{static_cast<int>(blockIdx.z) / p_.windows} * p_.grid_h * p_.grid_w * part_stride();
    constexpr int kRows = 16 * kRowTiles;
#pragma unroll 1
    for (int i = lane_; i < kRows * kChunks; i += 32) {
      const int query = warp_ * kRows + i / kChunks, chunk = i % kChunks;
      const int column = column_of(query / 16), row = first_row_of(query / 16) + query % 16;
      if (!in_window(row, column) || !in_grid(row, column)) continue;
      const uint4 piece = *reinterpret_cast<const uint4*>(ring_ + swizzled<HeadDim>(query, chunk));
      *reinterpret_cast<uint4*>(out + token(row, column) * part_stride() + chunk * 8) = piece;
    }
  }

  const AttentionParameters& p_;
  int warp_, lane_;
  LaneChunks<HeadDim> chunks_by_8_, chunks_by_16_;
  const T* qkv_;    // of the image, this head's query of token 0
  int tiles_per_column_, first_tile_;  // of the window, and the block's first, counted down the columns
  int top_, left_;                     // of the window, in the grid
  int inside_;                         // all of its tokens are in the grid; as a bool it would be kept in a predicate
  const T* next_;   // this thread's chunk of its first key in the next tile
  unsigned row_step_, copy_step_;  // elements to the next row of the grid, and to this thread's next key in a row
  T* ring_;
  int copy_row_, copy_chunk_, copy_place_;
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
  const int row_tiles = (parameters.side_h + 15) / 16 * parameters.side_w, per_block = kShape.queries() / 16;
  const dim3 grid((row_tiles + per_block - 1) / per_block, parameters.heads, parameters.batch * parameters.windows);
  return launch(attention_kernel<T, HeadDim, Tile, RelPos>, grid, dim3(kShape.threads()),
                kShape.shared_bytes(HeadDim, parameters.side_h), stream, parameters);
}

}  // namespace samrt
