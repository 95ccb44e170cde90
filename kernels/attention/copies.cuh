// A block's shared memory, and how queries, tables, keys and values come there.
#pragma once

#include "../common/device.cuh"
#include "place.cuh"
#include "rows.cuh"

namespace samrt {

// Sizes, and what lies where in shared memory: the ring of key and value tiles, the queries if they stay there, the row
// terms. Before the first keys the ring holds the queries and the table of row terms, and the row terms' place that of
// column terms.
template <typename T, int HeadDim, int Tile>
struct Layout {
  static constexpr TileShape kShape = kTileShapes[Tile];
  static constexpr int kThreads = kShape.threads(), kQueries = kShape.queries(), kKeys = kShape.keys();
  static constexpr int kRowTiles = kShape.row_tiles, kKeyRows = kShape.key_rows, kKeyColumns = kShape.key_columns;
  static constexpr int kStages = kShape.stages, kRingRows = kShape.ring_rows();
  static constexpr int kChunks = HeadDim / 8;                      // of 16 bytes, per row
  static constexpr bool kKeepQueries = !kShape.queries_in_shared;  // in registers
  // The table of row terms has the rest of the ring, beside the queries at first, then beside the first keys and values.
  static constexpr int kFirstPieceRow = kShape.first_piece_row(), kPieceRows = kRingRows - kFirstPieceRow;
  static constexpr int kTermStride = kShape.term_stride();
  static_assert(kKeyColumns % 16 == 0 && kQueries <= kRingRows);
  static_assert(kPieceRows % 16 == 0 && kShape.column_table_rows() <= kRingRows);

  __device__ static T* ring() { return reinterpret_cast<T*>(dynamic_shared()); }
  __device__ static T* key_tile(int stage) { return ring() + stage * 2 * kKeys * HeadDim; }
  __device__ static T* value_tile(int stage) { return key_tile(stage) + kKeys * HeadDim; }
  __device__ static T* queries() { return ring() + (kKeepQueries ? 0 : kRingRows * HeadDim); }
  __device__ static T* row_table() { return ring() + kFirstPieceRow * HeadDim; }
  // One number per key row and query: row_terms()[kh * kTermStride + query].
  __device__ static float* row_terms() {
    return reinterpret_cast<float*>(ring() + (kRingRows + (kKeepQueries ? 0 : kQueries)) * HeadDim);
  }
  // Of one strip of columns; when the others come, nothing else is in the ring.
  __device__ static T* column_table(int first_column) {
    return first_column == 0 ? reinterpret_cast<T*>(row_terms()) : ring();
  }
};

// This thread's part in the copies: one chunk of every kCopyRows-th row, or none.
template <typename T, int HeadDim, int Tile>
class Copies {
  using L = Layout<T, HeadDim, Tile>;
  static constexpr int kChunks = L::kChunks, kKeyColumns = L::kKeyColumns;
  // A power of two: the swizzle repeats after eight rows, and rows of the grid begin where those of a tile do.
  static constexpr int kCopyRows = L::kThreads < 16 * kChunks ? 8 : L::kThreads < 32 * kChunks ? 16 : 32;
  static constexpr int kCopies = L::kKeys / kCopyRows;
  static_assert(L::kThreads >= 8 * kChunks && kKeyColumns % kCopyRows == 0);

 public:
  __device__ explicit Copies(const AttentionParameters& parameters) : place(parameters) {
    find_chunk(threadIdx.x);
    in_tile_ = swizzled<HeadDim>(row_, chunk_);
    make_opaque(in_tile_);
    row_step_ = place.p.grid_w * 3u * place.p.part_stride;
    key_step_ = kCopyRows * 3u * place.p.part_stride;
    make_opaque(key_step_);
  }

  // As Place::forget(). What comes behind it is in the next strip of columns, whose first column it returns.
  __device__ int forget() {
    place.forget();
    int thread = threadIdx.x;
    make_opaque(thread);
    find_chunk(thread);
    return column_ - row_ + kKeyColumns;
  }

  // Held by value: a reference from one part of a block to another would keep all of it in memory.
  Place<T, HeadDim, L::kQueries> place;

  // Close this thread's copies, and wait for everybody's.
  __device__ static void wait_for_all() {
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
  }

  // Queries that are not in the grid are zero: nobody reads their results.
  __device__ void begin_queries() {
    begin_rows(L::queries(), L::kQueries, [this](int query) -> const T* {
      const int column = place.column_of(query / 16), row = place.first_row_of(query / 16) + query % 16;
      if (!place.in_grid(row, column)) return nullptr;
      return place.qkv() + place.token(row, column) * 3 * place.p.part_stride;
    });
  }

  // Table row qw - kw + side_w - 1 belongs to query column qw and key column kw. From the block's least on they are copied:
  // for each column of queries a run of kKeyColumns.
  __device__ void begin_column_table(int first_column) {
    const T* table = static_cast<const T*>(place.p.rel_pos_w);
    const int side_w = place.p.side_w, first_query = place.column_of(0);
    const int least = first_query - (first_column + kKeyColumns - 1) + side_w - 1;
    const int columns = place.column_of(L::kQueries / 16 - 1) - first_query;
    begin_rows(L::column_table(first_column), kKeyColumns + columns, [&](int row) {
      return least + row >= 0 && least + row < 2 * side_w - 1 ? table + (least + row) * HeadDim : nullptr;
    });
  }

  // A piece of the table of row terms, from row `first` on.
  __device__ void begin_row_table(int first) {
    const T* table = static_cast<const T*>(place.p.rel_pos_h);
    const int table_rows = 2 * place.p.side_h - 1;
    begin_rows(L::row_table(), L::kPieceRows, [&](int row) {
      return first + row < table_rows ? table + (first + row) * HeadDim : nullptr;
    });
  }

  // Before the first tile of a strip of columns.
  __device__ void begin_strip(int first_column) {
    column_ = first_column + row_;
    const int64_t first = place.token(0, column_);
    next_ = place.qkv() + (3 * first + 1) * place.p.part_stride + chunk_ * 8;
  }

  // Begin to copy the next tile of the strip, whose first row is `first_row`, into a stage of the ring.
  __device__ void begin_tile(int first_row, int stage) {
    if (kCopyRows * kChunks < L::kThreads && row_ >= kCopyRows) return;
    if (place.inside()) {
      begin_tile<true>(first_row, stage);
    } else {
      begin_tile<false>(first_row, stage);
    }
    next_ += L::kKeyRows * row_step_;
  }

 private:
  __device__ void find_chunk(int thread) {
    // Past the last whole row of chunks: no row is that far.
    row_ = thread < kCopyRows * kChunks ? thread / kChunks : L::kRingRows;
    chunk_ = thread % kChunks;
  }

  // Rows of HeadDim elements to `to`; `source(row)` is the first element, nullptr for zeros.
  template <typename Source>
  __device__ void begin_rows(T* to, int rows, Source source) {
#pragma unroll 1
    for (int row = row_; row < rows; row += kCopyRows) {
      const T* from = source(row);
      copy_async_16(to + swizzled<HeadDim>(row, chunk_), from ? from + chunk_ * 8 : place.qkv(), from != nullptr);
    }
  }

  template <bool Inside>
  __device__ void begin_tile(int first_row, int stage) {
    constexpr int kPerRow = kKeyColumns / kCopyRows;
    int my_column = column_, chunk = chunk_;
    if constexpr (!Inside) {
      // Or what only these copies need would lie ready in the common case too.
      make_opaque(my_column);
      make_opaque(chunk);
    }
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int row = first_row + i / kPerRow, column = my_column + i % kPerRow * kCopyRows;
      // The first row of a tile is always in the window. Zeros are not read from anywhere.
      const bool valid = column < place.p.side_w && (L::kKeyRows == 1 || row < place.p.side_h);
      const T* from = next_ + (i / kPerRow * row_step_ + i % kPerRow * key_step_);
      if (!Inside && !place.in_grid(row, column)) from = place.query_bias() + place.p.part_stride + chunk * 8;
      const int to = in_tile_ + i * kCopyRows * HeadDim;
      copy_async_16(L::key_tile(stage) + to, from, valid);
      copy_async_16(L::value_tile(stage) + to, from + place.p.part_stride, valid);
    }
  }

  int row_, chunk_;
  int in_tile_;                   // where this thread's chunk of its first key goes, in elements
  int column_;                    // of that key
  const T* next_;                 // and where it comes from for the next tile
  unsigned row_step_, key_step_;  // elements to the next row of the grid, and to this thread's next key in a row
};

}  // namespace samrt
