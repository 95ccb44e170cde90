// The running softmax of AttentionBlock: scores to weights, the weighted sum of values, and how the results leave.
// Members of the class in attention.cuh, which includes this: as a class of its own they gave ptxas another schedule.
#pragma once

namespace samrt {

// Scores of a row tile to unnormalised softmax weights, with what was summed before brought to the same maximum.
template <typename T, int HeadDim, int Tile, bool RelPos>
__device__ inline void AttentionBlock<T, HeadDim, Tile, RelPos>::to_weights(float (&scores)[kKeyBlocks][4], int i,
                                                                             int first_row) {
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
    grew |= maximum[half] > maximum_[i][half] + p_.slack;
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
template <typename T, int HeadDim, int Tile, bool RelPos>
__device__ inline void AttentionBlock<T, HeadDim, Tile, RelPos>::rescale(int i, const float (&maximum)[2]) {
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

template <typename T, int HeadDim, int Tile, bool RelPos>
__device__ inline float AttentionBlock<T, HeadDim, Tile, RelPos>::row_term_of(int key_row, int query) const {
  if constexpr (RelPos) return L::row_terms()[key_row * kTermStride + query];
  return key_row < p_.side_h ? 0.f : -INFINITY;
}

// results += weights * values. The scores' fragments are the left operand's, two blocks to one step.
template <typename T, int HeadDim, int Tile, bool RelPos>
__device__ inline void AttentionBlock<T, HeadDim, Tile, RelPos>::add_values(
    const float (&weights)[kRowTiles][kKeyBlocks][4], const T* values) {
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
template <typename T, int HeadDim, int Tile, bool RelPos>
__device__ inline void AttentionBlock<T, HeadDim, Tile, RelPos>::store() {
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
        memcpy(L::ring() + swizzled<HeadDim>(row, block) + lane_ % 4 * 2, &packed, sizeof packed);
      }
    }
  }
  __syncwarp();
  copies_.place.forget();
  T* out = copies_.place.out();
  constexpr int kRows = 16 * kRowTiles;
#pragma unroll 1
  for (int i = lane_; i < kRows * L::kChunks; i += 32) {
    const int query = warp_ * kRows + i / L::kChunks, chunk = i % L::kChunks;
    const int column = copies_.place.column_of(query / 16), row = copies_.place.first_row_of(query / 16) + query % 16;
    if (!copies_.place.in_grid(row, column)) continue;
    const uint4 piece = *reinterpret_cast<const uint4*>(L::ring() + swizzled<HeadDim>(query, chunk));
    *reinterpret_cast<uint4*>(out + copies_.place.token(row, column) * p_.part_stride + chunk * 8) = piece;
  }
}

}  // namespace samrt
