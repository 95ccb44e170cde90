// What the lanes of a warp do together, all 32 of them, and the arithmetic of bits.
#pragma once

#include <cstdint>
#include <type_traits>

#include "elements.hpp"
#include "threads.hpp"

namespace samrt::host {

// Each lane's part of a collective; results are written into it by the last lane to come.
struct LoadMatrices {
  const void* row;
  uint32_t* registers;
};
struct MultiplyAdd {
  float* c;
  const uint32_t* a;
  uint32_t b[2];
};
struct Shuffle {
  uint32_t bits;
  unsigned operand;  // a distance or a mask
};
struct Vote {
  bool predicate;
  uint32_t ballot;
};

template <typename T>
constexpr Kind kMultiplyAdd = std::is_same_v<T, __half> ? Kind::kMultiplyAddHalf : Kind::kMultiplyAddBfloat16;

// Do it; operands[lane] is what each lane passed to meet_warp.
void execute(Kind kind, void* const (&operands)[32], const Site (&sites)[32]);

template <typename T>
T shuffle(Kind kind, unsigned mask, T value, unsigned operand, Site site) {
  Shuffle operands{bits_as<uint32_t>(value), operand};
  meet_warp(kind, mask, &operands, site);
  return bits_as<T>(operands.bits);
}

inline uint32_t ballot(unsigned mask, bool predicate, Site site) {
  Vote operands{predicate, 0};
  meet_warp(Kind::kVote, mask, &operands, site);
  return operands.ballot;
}

}  // namespace samrt::host

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, samrt::host::Site site = samrt::host::here()) {
  return samrt::host::shuffle(samrt::host::Kind::kShuffleUp, mask, value, delta, site);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, unsigned lanes, samrt::host::Site site = samrt::host::here()) {
  return samrt::host::shuffle(samrt::host::Kind::kShuffleXor, mask, value, lanes, site);
}

inline int __any_sync(unsigned mask, int predicate, samrt::host::Site site = samrt::host::here()) {
  return samrt::host::ballot(mask, predicate != 0, site) != 0;
}

inline int __all_sync(unsigned mask, int predicate, samrt::host::Site site = samrt::host::here()) {
  return samrt::host::ballot(mask, predicate != 0, site) == mask;
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(static_cast<unsigned>(bits)) : 32; }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
