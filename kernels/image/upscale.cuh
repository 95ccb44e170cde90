// Where a pixel of the original lies among the low-res logits, and with which weights.
//
// Meta upscales twice: low-res L to the padded square S, of which the padding is cut off, then that input to the
// original. Both steps are bilinear with pixel centres at one half, so an original pixel draws on two neighbours in the
// input, and these together on at most three neighbours in low-res (as L <= S): one sum of three per axis.
#pragma once

#include "packed_bytes.cuh"

namespace samrt {

// The sizes along one axis. At most 2^16 for `original` and 2^14 for the others, so that products fit 32 bits.
struct UpscaleAxis {
  int32_t low_res, padded, input, original;
};

// weight[i] is for low-res logit first + i, or for the last where there is none.
struct alignas(16) Weights3 {
  float weight[3];
  int32_t first;
};

// Between `index` and its right neighbour, which has weight `fraction`; the last is its own right neighbour.
struct Place {
  int index;
  float fraction;
};

// (position + 0.5) * source / target - 0.5, at least 0. Floor and rest are exact: in integers.
__device__ inline Place place_of(int position, int source, int target) {
  const uint32_t reach = (2 * static_cast<uint32_t>(position) + 1) * static_cast<uint32_t>(source);
  const uint32_t unit = 2 * static_cast<uint32_t>(target);
  if (reach <= unit / 2) return {0, 0.f};
  const uint32_t index = (reach - unit / 2) / unit;
  const uint32_t rest = reach - unit / 2 - index * unit;
  return {static_cast<int>(index), static_cast<float>(rest) / static_cast<float>(unit)};
}

__device__ inline Weights3 upscale_weights(const UpscaleAxis& axis, int position) {
  const Place fine = place_of(position, axis.input, axis.original);
  const Place left = place_of(fine.index, axis.low_res, axis.padded);
  const Place right = place_of(min(fine.index + 1, axis.input - 1), axis.low_res, axis.padded);
  const float to_left = 1.f - fine.fraction;
  Weights3 result{{to_left * (1.f - left.fraction), to_left * left.fraction, 0.f}, left.index};
  const float near = fine.fraction * (1.f - right.fraction), far = fine.fraction * right.fraction;
  const bool moved = right.index != left.index;
  result.weight[0] += moved ? 0.f : near;
  result.weight[1] += moved ? near : far;
  result.weight[2] += moved ? far : 0.f;
  return result;
}

}  // namespace samrt
