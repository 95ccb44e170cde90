// What the host side of the attention and its instantiations know of each other.
#pragma once

#include "../common/device.cuh"
#include "tiles.h"

namespace samrt {

// As samrt_attention_args, checked, with what follows from it.
struct AttentionParameters {
  const void* qkv;
  const void* qkv_bias;
  const void* rel_pos_h;
  const void* rel_pos_w;
  void* out;
  int batch, grid_h, grid_w, heads;
  // Elements from a token's query to its key, and on to its value; a third of those to the next token.
  int part_stride;
  int side_h, side_w;           // of what attends to itself: the window, or the grid
  int tiles_per_column;         // of 16 rows
  int windows, windows_across;  // per image; 1 and 1 without windows
  float scale_log2;             // head_dim^-0.5 * log2(e): softmax is computed with powers of two
  float inverse_scale;          // head_dim^0.5: the bias is not scaled, the scores are, after both were added
  // How far scores may pass the maximum that is subtracted from them before results are rescaled to another.
  float slack;
};

// Defined for what instances.def lists, each in a translation unit of its own.
template <typename T, int HeadDim, int Tile, bool RelPos>
cudaError_t launch_attention(const AttentionParameters& parameters, cudaStream_t stream);

}  // namespace samrt
