// Where source pixels come from: four neighbours of a row at a time, as one register per channel.
#pragma once

#include "packed_bytes.cuh"

namespace samrt {

__device__ inline uint32_t clip_to_byte(int value) { return static_cast<uint32_t>(min(max(value, 0), 255)); }

// Whether all rows of a plane begin at a multiple of four bytes.
inline bool is_aligned(const void* plane, int64_t pitch) {
  return reinterpret_cast<uintptr_t>(plane) % 4 == 0 && pitch % 4 == 0;
}

__device__ inline uint32_t load_word(const uint8_t* aligned) { return *reinterpret_cast<const uint32_t*>(aligned); }

// kWords * 4 bytes from `address` on, anyhow aligned, of a row that ends at `end`; 0 for those past it, which are not
// read. Cut out of the aligned words around them where these end within the row.
template <int kWords>
__device__ inline void load_bytes(const uint8_t* address, const uint8_t* end, uint32_t (&words)[kWords]) {
  const int misalignment = static_cast<int>(reinterpret_cast<uintptr_t>(address) % 4);
  const uint8_t* aligned = address - misalignment;
  if (aligned + 4 * (kWords + 1) <= end) {
    uint32_t word = load_word(aligned);
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      const uint32_t next = load_word(aligned + 4 * (i + 1));
      words[i] = static_cast<uint32_t>((uint64_t{next} << 32 | word) >> 8 * misalignment);
      word = next;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      words[i] = 0;
      for (int j = 0; j < 4; ++j) {
        if (address + 4 * i + j < end) words[i] |= uint32_t{address[4 * i + j]} << 8 * j;
      }
    }
  }
}

// A source has these functions; `group` means pixels 4 * group to 4 * group + 3 of a row:
//   is_direct(group)                 whether load_direct will do: straight loads, of which a thread can have many
//   load_direct(row, group, words)   its bytes as they lie in memory
//   load(row, group, words)          the same, always; pixels past the row's end may be anything
//   unpack(words, channels)          byte i of channels[c] becomes channel c of the i-th pixel

// uint8 [height, width, 3], channels in the order of memory.
struct InterleavedPixels {
  static constexpr int kWords = 3;
  const uint8_t* image;
  int64_t pitch;
  int width;
  bool aligned;

  __device__ bool is_direct(int group) const { return aligned && 4 * group + 4 <= width; }
  __device__ void load_direct(int row, int group, uint32_t (&words)[kWords]) const {
    const uint8_t* address = image + row * pitch + 12 * group;
#pragma unroll
    for (int i = 0; i < kWords; ++i) words[i] = load_word(address + 4 * i);
  }
  __device__ void load(int row, int group, uint32_t (&words)[kWords]) const {
    const uint8_t* begin = image + row * pitch;
    load_bytes(begin + 12 * group, begin + 3 * width, words);
  }
  __device__ void unpack(const uint32_t (&words)[kWords], uint32_t (&channels)[3]) const {
    // Bytes 0, 3, 6, 9; 1, 4, 7, 10; 2, 5, 8, 11.
    channels[0] = pick_bytes(pick_bytes(words[0], words[1], 0x0630), words[2], 0x5210);
    channels[1] = pick_bytes(pick_bytes(words[0], words[1], 0x0741), words[2], 0x6210);
    channels[2] = pick_bytes(pick_bytes(words[0], words[1], 0x0052), words[2], 0x7410);
  }
};

// Factors of the conversion to RGB, times 2^20 (samrt_image.h).
struct YuvFactors {
  int y, v_to_r, u_to_g, v_to_g, u_to_b;
};

constexpr YuvFactors kBt601 = {1220542, 1673527, -409993, -852492, 2116026};
constexpr YuvFactors kBt709 = {1220945, 1879825, -223607, -558796, 2215014};

// Luma, and chroma at half the resolution.
struct Nv12Pixels {
  static constexpr int kWords = 2;  // of luma, of chroma
  const uint8_t *luma, *chroma;
  int64_t luma_pitch, chroma_pitch;
  int width;
  bool aligned;  // both
  YuvFactors factors;

  __device__ bool is_direct(int group) const { return aligned && 4 * group + 4 <= width; }
  __device__ void load_direct(int row, int group, uint32_t (&words)[kWords]) const {
    words[0] = load_word(luma + row * luma_pitch + 4 * group);
    words[1] = load_word(chroma + row / 2 * chroma_pitch + 4 * group);
  }
  __device__ void load(int row, int group, uint32_t (&words)[kWords]) const {
    const uint8_t *luma_row = luma + row * luma_pitch, *chroma_row = chroma + row / 2 * chroma_pitch;
    uint32_t y[1], uv[1];
    load_bytes(luma_row + 4 * group, luma_row + width, y);
    load_bytes(chroma_row + 4 * group, chroma_row + width, uv);
    words[0] = y[0];
    words[1] = uv[0];
  }
  __device__ void unpack(const uint32_t (&words)[kWords], uint32_t (&channels)[3]) const {
    channels[0] = channels[1] = channels[2] = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int y = max(static_cast<int>(words[0] >> 8 * i & 0xff) - 16, 0) * factors.y + (1 << 19);
      const int u = static_cast<int>(words[1] >> 16 * (i / 2) & 0xff) - 128;
      const int v = static_cast<int>(words[1] >> (16 * (i / 2) + 8) & 0xff) - 128;
      channels[0] |= clip_to_byte((y + factors.v_to_r * v) >> 20) << 8 * i;
      channels[1] |= clip_to_byte((y + factors.u_to_g * u + factors.v_to_g * v) >> 20) << 8 * i;
      channels[2] |= clip_to_byte((y + factors.u_to_b * u) >> 20) << 8 * i;
    }
  }
};

// The image on its side: rows are the source's columns. For the order of passes that is rarely wanted: four pixels are
// read for each that is used, mostly from the cache.
template <typename Source>
struct TransposedPixels {
  static constexpr int kWords = 3;  // of channels
  Source source;
  int height;  // of the source

  __device__ bool is_direct(int) const { return false; }
  __device__ void load_direct(int, int, uint32_t (&)[kWords]) const {}
  __device__ void load(int row, int group, uint32_t (&words)[kWords]) const {
    words[0] = words[1] = words[2] = 0;
#pragma unroll 1
    for (int i = 0; i < 4; ++i) {
      uint32_t four[Source::kWords], channels[3];
      source.load(min(4 * group + i, height - 1), row / 4, four);
      source.unpack(four, channels);
#pragma unroll
      for (int c = 0; c < 3; ++c) words[c] |= (channels[c] >> 8 * (row % 4) & 0xff) << 8 * i;
    }
  }
  __device__ void unpack(const uint32_t (&words)[kWords], uint32_t (&channels)[3]) const {
#pragma unroll
    for (int c = 0; c < 3; ++c) channels[c] = words[c];
  }
};

}  // namespace samrt
