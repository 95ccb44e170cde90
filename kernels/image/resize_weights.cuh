// The weights of Pillow's antialiased bilinear filter, in the form in which preprocess.cuh multiplies with them.
//
// Pillow computes per output pixel a window of source pixels and weights in float64, rounds the weights to 22 bits
// after the point, and sums in integers. Bit-exact results need the very same float64 operations, which many GPUs do
// slowly; so they are done once per geometry, not once per image.
#pragma once

#include "packed_bytes.cuh"

namespace samrt {

// Pillow's PRECISION_BITS: 32 bits less 8 of the pixel and 2 of headroom.
constexpr int kWeightBits = 22;

// Weights of four neighbours in a row (or column), the first at a multiple of four, cut into bytes: byte i of `low`,
// `middle` and `high` together are the weight of neighbour i. Three dot products of bytes then make one of pixels.
struct alignas(16) Weights4 {
  uint32_t low, middle, high, unused;
};

// Which of the groups of four source pixels an output pixel draws on: `groups` of them from `first` on.
struct Window {
  int32_t first, groups;
};

// Both axes' windows and weights; weights of output pixel i begin at i * stride.
struct AxisWeights {
  Window* windows;
  Weights4* weights;
  int32_t stride;
  int32_t source, target;
};

struct ResizeWeights {
  AxisWeights rows, columns;
};

// A product that the compiler does not contract with a following sum, as Pillow's compiler had not.
__device__ inline double rounded_product(double a, double b) {
#ifdef __CUDA_ARCH__
  return __dmul_rn(a, b);
#else
  const volatile double product = a * b;
  return product;
#endif
}

// The triangle filter at source pixel x.
__device__ inline double triangle(int x, double center, double inverse_scale) {
  const double distance = fabs(rounded_product(x - center + 0.5, inverse_scale));
  return distance < 1.0 ? 1.0 - distance : 0.0;
}

// One thread per output row and column.
static __global__ void resize_weights_kernel(ResizeWeights both) {
  int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const bool is_row = i < both.rows.target;
  const AxisWeights axis = is_row ? both.rows : both.columns;
  if (!is_row) i -= both.rows.target;
  if (i >= axis.target) return;

  const double scale = static_cast<double>(axis.source) / axis.target;
  const double support = scale < 1.0 ? 1.0 : scale;
  const double center = rounded_product(i + 0.5, scale);
  const int begin = max(static_cast<int>(center - support + 0.5), 0);
  const int end = min(static_cast<int>(center + support + 0.5), axis.source);
  const double inverse_scale = 1.0 / support;
  double total = 0.0;
  for (int x = begin; x < end; ++x) total += triangle(x, center, inverse_scale);

  const Window window{begin / 4, (end + 3) / 4 - begin / 4};
  axis.windows[i] = window;
  for (int group = 0; group < window.groups; ++group) {
    Weights4 weights{};
    for (int j = 0; j < 4; ++j) {
      const int x = 4 * (window.first + group) + j;
      if (x < begin || x >= end) continue;
      const double share = triangle(x, center, inverse_scale) / total;
      const uint32_t weight = static_cast<uint32_t>(0.5 + share * (1 << kWeightBits));
      weights.low |= (weight & 0xff) << 8 * j;
      weights.middle |= (weight >> 8 & 0xff) << 8 * j;
      weights.high |= weight >> 16 << 8 * j;
    }
    axis.weights[static_cast<int64_t>(i) * axis.stride + group] = weights;
  }
}

// The most groups of four that a window touches: at most 2 * ceil(support) + 1 neighbours, wherever they begin.
inline int most_groups(int source, int target) {
  const int support = source <= target ? 1 : (source + target - 1) / target;
  return (2 * support + 1 + 3 + 3) / 4;
}

}  // namespace samrt
