// An attention's tensors in host memory, and the error of its result against float64. Apart from TensorRT's headers and
// CUDA's, which the host build's number formats do not go together with.
#pragma once

#include <cstdint>
#include <vector>

struct AttentionCase {
  int batch, grid_h, grid_w, heads, head_dim, window;
  bool bfloat16;
  int side_h() const { return window ? window : grid_h; }
  int side_w() const { return window ? window : grid_w; }
};

// 16-bit numbers, shapes as samrt_plugin.h has them; the same for the same case. `out` is NaN at first.
struct AttentionData {
  explicit AttentionData(const AttentionCase& c);
  // Of `out`, NaN included as infinity.
  double largest_error() const;

  AttentionCase c;
  std::vector<uint16_t> qkv, qkv_bias, rel_pos_h, rel_pos_w, out;
};
