#include "warp.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>

#include "copies.hpp"

namespace samrt::host {
namespace {

template <typename Operands>
Operands& of(void* const (&operands)[32], unsigned lane) {
  return *static_cast<Operands*>(operands[lane]);
}

// ldmatrix.m8n8.x4: lanes 8m .. 8m + 7 name the rows of matrix m. Without .trans, lane l receives of each matrix the
// elements (l / 4, 2 * (l % 4)) and (l / 4, 2 * (l % 4) + 1); with it, those at the mirrored places.
void load_matrices(void* const (&operands)[32], const Site (&sites)[32], bool transposed) {
  uint16_t matrices[4][8][8];
  for (unsigned lane = 0; lane < 32; ++lane) {
    const void* row = of<LoadMatrices>(operands, lane).row;
    check_shared_row(row, "ldmatrix", sites[lane], lane);
    memcpy(matrices[lane / 8][lane % 8], row, 16);
  }
  for (unsigned lane = 0; lane < 32; ++lane) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      const unsigned row = lane / 4, column = 2 * (lane % 4);
      const auto& m = matrices[matrix];
      const uint32_t low = transposed ? m[column][row] : m[row][column];
      const uint32_t high = transposed ? m[column + 1][row] : m[row][column + 1];
      of<LoadMatrices>(operands, lane).registers[matrix] = low | high << 16;
    }
  }
}

// Sums of 17 addends, eight sums at a time. Each addend is cut off at the last of the 24 bits that the largest of its sum
// has in float32.
void sum_cut_off(const double (&addends)[17][8], double (&sums)[8]) {
  double exact[8] = {}, largest[8] = {}, scale[8];
  for (const auto& eight : addends) {
    for (int i = 0; i < 8; ++i) {
      const double magnitude = std::fabs(eight[i]);
      exact[i] += eight[i];
      largest[i] = magnitude > largest[i] ? magnitude : largest[i];
    }
  }
  // By their bits, as ilogb and ldexp take ten times as long. Times 2^shift the largest has 24 bits before the point.
  const auto power_of_two = [](int exponent) { return bits_as<double>(static_cast<uint64_t>(exponent + 1023) << 52); };
  int shift[8];
  for (int i = 0; i < 8; ++i) {
    const bool plain = std::isfinite(exact[i]) && largest[i] > 0;
    shift[i] = plain ? 23 + 1023 - static_cast<int>(bits_as<uint64_t>(largest[i]) >> 52) : 0;
    scale[i] = plain ? power_of_two(shift[i]) : 0;
  }
  int32_t cut_off[8] = {};  // 17 numbers below 2^24 each
  for (const auto& eight : addends) {
    for (int i = 0; i < 8; ++i) {
      const double scaled = eight[i] * scale[i];
      cut_off[i] += static_cast<int32_t>(std::isnan(scaled) ? 0.0 : scaled);  // infinity times 0
    }
  }
  for (int i = 0; i < 8; ++i) sums[i] = scale[i] > 0 ? cut_off[i] * power_of_two(-shift[i]) : exact[i];
}

// mma.m16n8k16. In the PTX ISA's words, with groupID = lane / 4 and threadID_in_group = lane % 4:
//   a_i: row groupID, + 8 where i is 2, 3, 6 or 7; column threadID_in_group * 2 + i % 2, + 8 where i >= 4
//   b_i: row threadID_in_group * 2 + i % 2, + 8 where i >= 2; column groupID
//   c_i: row groupID, + 8 where i >= 2; column threadID_in_group * 2 + i % 2
// Elements 2r and 2r + 1 are the lower and the upper half of register r. How the sum is rounded on its way is not
// specified. Here it is at its worst: every addend is cut off, not rounded, at the last bit that the largest has in
// float32.
template <float (*value)(uint16_t)>
void multiply_add(void* const (&operands)[32]) {
  double a[16][16], b[16][8], c[16][8];
  const auto element = [](const uint32_t* registers, unsigned i) {
    return value(static_cast<uint16_t>(registers[i / 2] >> (16 * (i % 2))));
  };
  for (unsigned lane = 0; lane < 32; ++lane) {
    const MultiplyAdd& mine = of<MultiplyAdd>(operands, lane);
    const unsigned group = lane / 4, in_group = lane % 4;
    for (unsigned i = 0; i < 8; ++i) {
      const unsigned row = group + (i == 2 || i == 3 || i == 6 || i == 7 ? 8 : 0);
      a[row][in_group * 2 + i % 2 + (i >= 4 ? 8 : 0)] = element(mine.a, i);
    }
    for (unsigned i = 0; i < 4; ++i) {
      b[in_group * 2 + i % 2 + (i >= 2 ? 8 : 0)][group] = element(mine.b, i);
      c[group + (i >= 2 ? 8 : 0)][in_group * 2 + i % 2] = mine.c[i];
    }
  }
  for (int row = 0; row < 16; ++row) {
    double addends[17][8];
    memcpy(addends[16], c[row], sizeof c[row]);
    for (int k = 0; k < 16; ++k) {
      for (int column = 0; column < 8; ++column) addends[k][column] = a[row][k] * b[k][column];
    }
    sum_cut_off(addends, c[row]);
  }
  for (unsigned lane = 0; lane < 32; ++lane) {
    float* mine = of<MultiplyAdd>(operands, lane).c;
    for (unsigned i = 0; i < 4; ++i) {
      mine[i] = static_cast<float>(c[lane / 4 + (i >= 2 ? 8 : 0)][lane % 4 * 2 + i % 2]);
    }
  }
}

void shuffle(Kind kind, void* const (&operands)[32]) {
  uint32_t received[32];
  for (unsigned lane = 0; lane < 32; ++lane) {
    const unsigned operand = of<Shuffle>(operands, lane).operand;
    // A lane that has none so far below it reads its own value.
    const unsigned below = lane >= operand ? lane - operand : lane;
    received[lane] = of<Shuffle>(operands, kind == Kind::kShuffleUp ? below : (lane ^ operand) % 32).bits;
  }
  for (unsigned lane = 0; lane < 32; ++lane) of<Shuffle>(operands, lane).bits = received[lane];
}

void vote(void* const (&operands)[32]) {
  uint32_t ballot = 0;
  for (unsigned lane = 0; lane < 32; ++lane) ballot |= uint32_t{of<Vote>(operands, lane).predicate} << lane;
  for (unsigned lane = 0; lane < 32; ++lane) of<Vote>(operands, lane).ballot = ballot;
}

}  // namespace

void execute(Kind kind, void* const (&operands)[32], const Site (&sites)[32]) {
  switch (kind) {
    case Kind::kLoadMatrices: return load_matrices(operands, sites, false);
    case Kind::kLoadMatricesTransposed: return load_matrices(operands, sites, true);
    case Kind::kMultiplyAddHalf: return multiply_add<half_value>(operands);
    case Kind::kMultiplyAddBfloat16: return multiply_add<bfloat16_value>(operands);
    case Kind::kShuffleUp:
    case Kind::kShuffleXor: return shuffle(kind, operands);
    case Kind::kVote: return vote(operands);
    case Kind::kSyncWarp:
    case Kind::kSyncThreads: return;
  }
}

const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::kSyncThreads: return "__syncthreads";
    case Kind::kSyncWarp: return "__syncwarp";
    case Kind::kLoadMatrices: return "ldmatrix";
    case Kind::kLoadMatricesTransposed: return "ldmatrix.trans";
    case Kind::kMultiplyAddHalf: return "mma f16";
    case Kind::kMultiplyAddBfloat16: return "mma bf16";
    case Kind::kShuffleUp: return "__shfl_up_sync";
    case Kind::kShuffleXor: return "__shfl_xor_sync";
    case Kind::kVote: return "a vote";
  }
  return "?";
}

}  // namespace samrt::host
