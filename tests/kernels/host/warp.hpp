// What the lanes of a warp do together, atomics, and the arithmetic of bits.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "elements.hpp"
#include "races.hpp"
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
  uint64_t bits;
  int operand;  // a lane, a distance or a mask
  int width;
};
struct Vote {
  bool predicate;
  uint32_t ballot;
};

template <typename T>
constexpr Kind kMultiplyAdd = std::is_same_v<T, __half> ? Kind::kMultiplyAddHalf : Kind::kMultiplyAddBfloat16;

// Do it for the lanes of `mask`; operands[lane] is what each one passed to meet_warp.
void execute(Kind kind, uint32_t mask, void* const (&operands)[32], const Site (&sites)[32]);

template <typename T>
T shuffle(Kind kind, unsigned mask, T value, int operand, int width, Site site) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "shuffles take 32 or 64 bits");
  Shuffle operands{0, operand, width};
  memcpy(&operands.bits, &value, sizeof value);
  meet_warp(kind, mask, &operands, site);
  memcpy(&value, &operands.bits, sizeof value);
  return value;
}

inline uint32_t ballot(unsigned mask, bool predicate, Site site) {
  Vote operands{predicate, 0};
  meet_warp(Kind::kBallot, mask, &operands, site);
  return operands.ballot;
}

// As a parameter: what it is does not decide what T is.
template <typename T>
using Value = std::enable_if_t<true, T>;

// Threads take turns only where they wait for others, so any operation is atomic; the race detector is told.
template <typename T, typename Operation>
T atomic(T* address, Operation operation) {
  note_atomic(address, sizeof *address);
  return exchange(address, operation(peek(address)));
}

}  // namespace samrt::host

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, samrt::host::Site site = samrt::host::here()) {
  return samrt::host::shuffle(samrt::host::Kind::kShuffle, mask, value, lane, width, site);
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 samrt::host::Site site = samrt::host::here()) {
  return samrt::host::shuffle(samrt::host::Kind::kShuffleUp, mask, value, static_cast<int>(delta), width, site);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   samrt::host::Site site = samrt::host::here()) {
  return samrt::host::shuffle(samrt::host::Kind::kShuffleDown, mask, value, static_cast<int>(delta), width, site);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, samrt::host::Site site = samrt::host::here()) {
  return samrt::host::shuffle(samrt::host::Kind::kShuffleXor, mask, value, lanes, width, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, samrt::host::Site site = samrt::host::here()) {
  return samrt::host::ballot(mask, predicate != 0, site);
}

inline int __any_sync(unsigned mask, int predicate, samrt::host::Site site = samrt::host::here()) {
  return samrt::host::ballot(mask, predicate != 0, site) != 0;
}

inline int __all_sync(unsigned mask, int predicate, samrt::host::Site site = samrt::host::here()) {
  return samrt::host::ballot(mask, predicate != 0, site) == mask;
}

template <typename T>
T atomicAdd(T* address, samrt::host::Value<T> value) {
  return samrt::host::atomic(address, [=](T old) { return old + value; });
}

template <typename T>
T atomicMin(T* address, samrt::host::Value<T> value) {
  static_assert(std::is_integral_v<T>);
  return samrt::host::atomic(address, [=](T old) { return old < value ? old : value; });
}

template <typename T>
T atomicMax(T* address, samrt::host::Value<T> value) {
  static_assert(std::is_integral_v<T>);
  return samrt::host::atomic(address, [=](T old) { return old > value ? old : value; });
}

template <typename T>
T atomicOr(T* address, samrt::host::Value<T> value) {
  static_assert(std::is_integral_v<T>);
  return samrt::host::atomic(address, [=](T old) { return old | value; });
}

template <typename T>
T atomicAnd(T* address, samrt::host::Value<T> value) {
  static_assert(std::is_integral_v<T>);
  return samrt::host::atomic(address, [=](T old) { return old & value; });
}

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(static_cast<unsigned>(bits)) : 32; }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
