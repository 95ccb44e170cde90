// Tile shapes of the attention kernel, and the default shape for a device. No other file defines them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace samrt {

// What one block processes. A block holds warps * row_tiles * 16 queries. It loops over the keys in tiles of key_rows rows
// of the grid times key_columns columns. `stages` of these tiles are in shared memory at a time.
struct TileShape {
  const char* name;
  int warps;
  int row_tiles;  // of 16 queries each, per warp
  int key_rows;
  int key_columns;
  int stages;
  bool queries_in_shared;  // memory, because there are no registers for them; loaded again for each key tile
  int blocks_64;  // per multiprocessor that registers must allow, with heads of 64; with wider heads 1

  constexpr int threads() const { return 32 * warps; }
  constexpr int blocks(int head_dim) const { return head_dim > 64 ? 1 : blocks_64; }
  constexpr int queries() const { return 16 * row_tiles * warps; }
  constexpr int keys() const { return key_rows * key_columns; }
  // Rows of head_dim elements in the ring of key and value tiles, which also stages queries, tables and results.
  constexpr int ring_rows() const { return 2 * stages * keys(); }
  // Where in the ring the table of row terms is staged: past the queries, and past the tiles that are copied meanwhile.
  constexpr int first_piece_row() const {
    const int tiles = ring_rows() - 2 * keys(), queries_there = queries_in_shared ? 0 : queries();
    return tiles > queries_there ? tiles : queries_there;
  }
  // Table rows that the queries of a block need for one strip of columns: one range for each grid column of theirs.
  constexpr int column_table_rows() const { return key_columns + queries() / 16 - 1; }
  // The table of row terms: whole tiles of key rows, and between them floats such that the fragments' stores, eight
  // queries times four key rows apart by two, meet 32 banks.
  constexpr int term_rows(int side_h) const { return (side_h + key_rows - 1) / key_rows * key_rows; }
  constexpr int term_stride() const { return queries() + 4; }
  // The column table of the first strip is stored in the same place until it was used.
  constexpr size_t term_bytes(int head_dim, int side_h) const {
    const size_t terms = sizeof(float) * term_rows(side_h) * term_stride();
    const size_t table = size_t{2} * column_table_rows() * head_dim;
    return terms > table ? terms : table;
  }
  constexpr size_t shared_bytes(int head_dim, int side_h) const {
    const int rows = ring_rows() + (queries_in_shared ? queries() : 0);
    return size_t{2} * rows * head_dim + term_bytes(head_dim, side_h);
  }
};

// A row tile needs these registers per thread: key_columns / 2 for its column terms, keys() / 2 for its scores,
// head_dim / 2 for its results and, unless the queries stay in shared memory, head_dim / 4 for them. If the sum exceeds
// 192 (that of 128x1x64w4), nvcc 13.0 spills. So two row tiles are possible only with heads of 64. Two row tiles read each
// key from shared memory half as often; with one row tile, these reads are the limit where tensor cores are fast.
// instances.def lists which shapes are compiled for which heads.
constexpr TileShape kTileShapes[] = {
    {"64x1x64", 4, 1, 1, 64, 2, false, 2},   // a grid row of 64 keys at once; two blocks fit into 100 KB
    {"128x1x64", 8, 1, 1, 64, 2, false, 1},  // the same, each key read from memory half as often
    {"128x1x32", 4, 2, 1, 32, 3, false, 2},  // two row tiles; grids up to 32 wide, and wider ones in strips of 32 columns
    {"64x2x32", 4, 1, 2, 32, 2, false, 2},   // grids up to 32 wide with one row tile
    {"64x2x16", 4, 1, 2, 16, 3, false, 4},   // four columns of a window; 100 KB hold three blocks of 14 rows
    // As 128x1x64, with two row tiles in half the warps; two blocks fit into 164 KB.
    {"128x1x64w4", 4, 2, 1, 64, 2, true, 1},
};
constexpr int kTileShapeCount = sizeof(kTileShapes) / sizeof(kTileShapes[0]);

// The default shape for an attention over side_h x side_w tokens, on a device of this compute capability (87 for 8.7) with
// `shared_bytes` of shared memory per block.
//
// Measured on an H100 (9.0), with heads of 64 and 80: the grid of 64 x 64 and windows of 14. For these, blocks per
// multiprocessor count: while one waits at a barrier, others work. A layer of ViT-B takes 64x2x16 38.9 us with four blocks,
// and 43.4 us with three. The rest is reasoning about shared memory and registers.
constexpr int choose_tile(int architecture, int side_h, int side_w, int head_dim, size_t shared_bytes) {
  constexpr int kWide = 0, kWideLarge = 1, kNarrowLarge = 2, kNarrow = 3, kWindow = 4, kWideTwo = 5;
  if (side_w <= 16) return kWindow;
  const int shape = side_w <= 32 ? kNarrow : kWide, large = side_w <= 32 ? kNarrowLarge : kWideLarge;
  // 8.6, 8.9 and 12.x have 100 KB of shared memory per multiprocessor, the others at least 164.
  const bool small_shared = architecture == 86 || architecture == 89 || architecture >= 120;
  const bool compiled = large == kWideLarge || head_dim == 64;
  // Its four warps need a second block on the same multiprocessor. A multiprocessor has 1 KB more than one block may use,
  // and reserves 1 KB for each block.
  const size_t two_blocks = 2 * (kTileShapes[kWideTwo].shared_bytes(head_dim, side_h) + 1024);
  if (large == kWideLarge && head_dim == 64 && !small_shared && two_blocks <= shared_bytes + 1024) return kWideTwo;
  // Row terms grow with the grid's height times the block's queries.
  const bool fits = kTileShapes[large].shared_bytes(head_dim, side_h) <= shared_bytes;
  return compiled && fits && (!small_shared || large == kNarrowLarge) ? large : shape;
}

}  // namespace samrt
