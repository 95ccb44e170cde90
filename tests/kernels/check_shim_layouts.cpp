// Number formats and what the lanes of a warp compute together, against the layouts as kernels/common/device.cuh states
// them; host/warp.cpp has them in the words of the PTX ISA. So both statements are held against each other.
#include <cmath>

#include "check_shim.hpp"

namespace {

using namespace samrt;

// Every finite value comes back; what lies between two neighbours goes to the nearer one, the middle to the even one.
template <float (*value)(uint16_t), uint16_t (*bits)(float)>
void rounds_to_nearest_even(unsigned infinity) {
  for (unsigned i = 0; i < infinity; ++i) {
    EXPECT(bits(value(i)) == i);
    EXPECT(bits(-value(i)) == (i | 0x8000u));
    if (i + 1 == infinity) break;
    const float middle = static_cast<float>((static_cast<double>(value(i)) + value(i + 1)) / 2);
    EXPECT(value(i) < middle || i == 0);
    EXPECT(bits(middle) == i + i % 2);
    EXPECT(bits(std::nextafter(middle, 0.f)) == i);
    EXPECT(bits(std::nextafter(middle, INFINITY)) == i + 1);
  }
  EXPECT(bits(INFINITY) == infinity);
  EXPECT(std::isinf(value(infinity)) && value(infinity | 0x8000u) < 0);
  EXPECT(std::isnan(value(infinity + 1)) && std::isnan(value(bits(NAN))));
}

void half() {
  rounds_to_nearest_even<host::half_value, host::half_bits>(0x7c00);
  EXPECT(host::half_value(0x3c00) == 1.f && host::half_value(0xc000) == -2.f && host::half_value(1) == 0x1p-24f);
  EXPECT(host::half_value(0x7bff) == 65504.f);
  EXPECT(host::half_bits(std::nextafter(65520.f, 0.f)) == 0x7bff && host::half_bits(65520.f) == 0x7c00);
}

void bfloat16() {
  rounds_to_nearest_even<host::bfloat16_value, host::bfloat16_bits>(0x7f80);
  EXPECT(host::bfloat16_value(0x3f80) == 1.f && host::bfloat16_value(0xc000) == -2.f);
  EXPECT(host::bfloat16_bits(3.4e38f) == 0x7f80);
}

void packing() {
  EXPECT(Element<__half>::pack(1.f, -2.f) == 0xc0003c00u);
  EXPECT(Element<__nv_bfloat16>::pack(1.f, -2.f) == 0xc0003f80u);
}

// Four matrices whose elements are all different, in rows that are neither in order nor next to each other.
uint16_t element(int matrix, int row, int column) { return static_cast<uint16_t>(1000 * matrix + 10 * row + column); }
int place(int matrix, int row) { return ((matrix * 8 + row) * 5 % 32) * 3; }  // in units of 16 bytes

void load_matrices_kernel(uint32_t* out, bool transposed) {
  auto shared = reinterpret_cast<uint16_t*>(dynamic_shared());
  const int lane = threadIdx.x % 32;
  for (int column = 0; column < 8; ++column) {
    shared[place(lane / 8, lane % 8) * 8 + column] = element(lane / 8, lane % 8, column);
  }
  __syncwarp();
  uint32_t registers[4];
  const void* row = shared + place(lane / 8, lane % 8) * 8;
  if (transposed) {
    load_matrices_transposed(registers, row);
  } else {
    load_matrices(registers, row);
  }
  memcpy(out + 4 * lane, registers, sizeof registers);
}

void ldmatrix() {
  uint32_t out[128];
  run_block(load_matrices_kernel, 32, 32 * 3 * 16, out, false);
  for (int lane = 0; lane < 32; ++lane) {
    for (int m = 0; m < 4; ++m) {
      const int row = lane / 4, column = 2 * (lane % 4);
      EXPECT((out[4 * lane + m] & 0xffffu) == element(m, row, column));
      EXPECT(out[4 * lane + m] >> 16 == element(m, row, column + 1));
    }
  }
}

void ldmatrix_transposed() {
  uint32_t out[128];
  run_block(load_matrices_kernel, 32, 32 * 3 * 16, out, true);
  for (int lane = 0; lane < 32; ++lane) {
    for (int m = 0; m < 4; ++m) {
      const int row = 2 * (lane % 4), column = lane / 4;
      EXPECT((out[4 * lane + m] & 0xffffu) == element(m, row, column));
      EXPECT(out[4 * lane + m] >> 16 == element(m, row + 1, column));
    }
  }
}

// Small integers, which both formats hold exactly and whose sums are exact.
struct Product {
  float a[16][16], b[16][8], c[16][8];
  Product() {
    for (int i = 0; i < 16; ++i) {
      for (int k = 0; k < 16; ++k) a[i][k] = static_cast<float>((3 * i + 5 * k) % 17 - 8);
      for (int j = 0; j < 8; ++j) {
        b[i][j] = static_cast<float>((7 * i + 2 * j) % 13 - 6);
        c[i][j] = static_cast<float>(100 * i + j);
      }
    }
  }
  float expected(int i, int j) const {
    float sum = c[i][j];
    for (int k = 0; k < 16; ++k) sum += a[i][k] * b[k][j];
    return sum;
  }
};

template <typename T>
void multiply_add_kernel(Product product, float* out) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const auto pair_a = [&](int row, int column) {
    return Element<T>::pack(product.a[row][column], product.a[row][column + 1]);
  };
  const auto pair_b = [&](int row, int column) {
    return Element<T>::pack(product.b[row][column], product.b[row + 1][column]);
  };
  const uint32_t a[4] = {pair_a(g, 2 * t), pair_a(g + 8, 2 * t), pair_a(g, 2 * t + 8), pair_a(g + 8, 2 * t + 8)};
  float c[4] = {product.c[g][2 * t], product.c[g][2 * t + 1], product.c[g + 8][2 * t], product.c[g + 8][2 * t + 1]};
  multiply_add<T>(c, a, pair_b(2 * t, g), pair_b(2 * t + 8, g));
  memcpy(out + 4 * lane, c, sizeof c);
}

template <typename T>
void mma() {
  const Product product;
  float out[128];
  run_block(multiply_add_kernel<T>, 32, 0, product, out);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      EXPECT(out[4 * lane + i] == product.expected(lane / 4 + i / 2 * 8, 2 * (lane % 4) + i % 2));
    }
  }
}

// Products of fp16 lie far apart: c and every product count, and infinities and NaN stay in their row.
void extreme_product_kernel(float* out) {
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  // Row 0 of a is 65504, 0, ...; row 1 starts with infinity, row 2 with NaN; b is 1 in its first row, 0 elsewhere.
  const float first[8] = {65504.f, INFINITY, NAN, 0x1p-24f, 0, 0, 0, 0};
  const uint32_t a[4] = {t == 0 ? Element<__half>::pack(first[g], 0.f) : 0u, 0u, 0u, 0u};
  float c[4] = {0x1p-20f, 0.f, 0.f, 0.f};
  multiply_add<__half>(c, a, t == 0 ? Element<__half>::pack(1.f, 0.f) : 0u, 0u);
  out[lane] = c[0];
}

void extreme_product() {
  float out[32];
  run_block(extreme_product_kernel, 32, 0, out);
  for (int t = 0; t < 4; ++t) {
    EXPECT(out[t] == 65504.f && std::isinf(out[4 + t]) && std::isnan(out[8 + t]));
    EXPECT(out[12 + t] == 0x1p-20f + 0x1p-24f && out[16 + t] == 0x1p-20f);
  }
}

// What lies below the last bit of the largest addend is cut off: nearer to zero, and each addend for itself.
void cut_off_kernel(float* out) {
  const int lane = threadIdx.x, t = lane % 4;
  // Row 0 of a times the first column of b: 2048 * 2048, and four times 0.75.
  const uint32_t large = Element<__half>::pack(2048.f, 0.f);
  const uint32_t a[4] = {lane == 0 ? large : lane < 3 ? Element<__half>::pack(.75f, .75f) : 0u, 0u, 0u, 0u};
  const uint32_t b = lane == 0 ? large : lane < 3 ? Element<__half>::pack(1.f, 1.f) : 0u;
  float c[4] = {t == 0 ? -4.f * 0x1p22f : 0.f, 0.f, 0.f, 0.f};
  multiply_add<__half>(c, a, b, 0u);
  if (lane == 0) out[0] = c[0];
  for (float& value : c) value = 0.f;
  multiply_add<__half>(c, a, b, 0u);
  if (lane == 0) out[1] = c[0];
}

void cut_off() {
  float out[2];
  run_block(cut_off_kernel, 32, 0, out);
  // The largest is 2^24 with steps of 2^1; then 2^22 with steps of a half.
  EXPECT(out[0] == -3.f * 0x1p22f && out[1] == 0x1p22f + 4 * .5f);
}

void exponential() {
  EXPECT(exp2_approximate(3.f) == 8.f && exp2_approximate(-INFINITY) == 0.f && exp2_approximate(0.f) == 1.f);
  EXPECT(exp2_approximate(-126.f) == 0x1p-126f && exp2_approximate(-126.5f) == 0.f);
  EXPECT(std::isinf(exp2_approximate(128.f)) && std::isnan(exp2_approximate(NAN)));
}

void shuffles_kernel(float* out) {
  const int lane = threadIdx.x;
  out[2 * lane] = __shfl_up_sync(kFullWarp, 1.5f * lane, 3u);
  out[2 * lane + 1] = __shfl_xor_sync(kFullWarp, 1.5f * lane, 12);
}

void shuffles() {
  float out[64];
  run_block(shuffles_kernel, 32, 0, out);
  for (int lane = 0; lane < 32; ++lane) {
    EXPECT(out[2 * lane] == 1.5f * (lane < 3 ? lane : lane - 3) && out[2 * lane + 1] == 1.5f * (lane ^ 12));
  }
}

void votes_kernel(int* out) {
  const int lane = threadIdx.x;
  int* mine = out + 4 * lane;
  mine[0] = __any_sync(kFullWarp, lane == 17);
  mine[1] = __any_sync(kFullWarp, 0);
  mine[2] = __all_sync(kFullWarp, lane < 32);
  mine[3] = __all_sync(kFullWarp, lane != 17);
}

void votes() {
  int out[128];
  run_block(votes_kernel, 32, 0, out);
  for (int i = 0; i < 128; ++i) EXPECT(out[i] == (i % 2 == 0));
}

void bits_of_integers() {
  EXPECT(__popc(0xf0f0u) == 8 && __clz(1) == 31 && __clz(0) == 32 && __ffs(8) == 4 && __ffs(0) == 0);
}

void indices_kernel(int* out) {
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1;
}

void indices() {
  std::vector<int> out(2 * 3 * 4 * 5 * 6 * 2);
  EXPECT(launch(indices_kernel, dim3(2, 3, 4), dim3(5, 6, 2), 0, nullptr, out.data()) == cudaSuccess);
  for (const int count : out) EXPECT(count == 1);
}

void nothing_kernel() {}

void limits() {
  const auto attempt = [](dim3 grid, dim3 block, size_t shared) {
    return launch(nothing_kernel, grid, block, shared, nullptr);
  };
  EXPECT(attempt(1, 1024, 0) == cudaSuccess && attempt(1, 1025, 0) == cudaErrorInvalidConfiguration);
  EXPECT(attempt(0, 32, 0) == cudaErrorInvalidConfiguration && attempt(1, 0, 0) == cudaErrorInvalidConfiguration);
  EXPECT(attempt(dim3(1, 65536), 1, 0) == cudaErrorInvalidConfiguration);
  samrt_host_set_device(87, 100000);
  EXPECT(attempt(1, 32, 100000) == cudaSuccess && attempt(1, 32, 100001) == cudaErrorInvalidValue);
  int major = 0, minor = 0, shared = 0;
  EXPECT(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess && major == 8);
  EXPECT(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0) == cudaSuccess && minor == 7);
  EXPECT(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0) == cudaSuccess);
  EXPECT(shared == 100000);
}

}  // namespace

const std::vector<Check> kLayoutChecks = {
    {"half", half},
    {"bfloat16", bfloat16},
    {"packing", packing},
    {"ldmatrix", ldmatrix},
    {"ldmatrix_transposed", ldmatrix_transposed},
    {"mma_half", mma<__half>},
    {"mma_bfloat16", mma<__nv_bfloat16>},
    {"extreme_product", extreme_product},
    {"cut_off", cut_off},
    {"exponential", exponential},
    {"shuffles", shuffles},
    {"votes", votes},
    {"bits_of_integers", bits_of_integers},
    {"indices", indices},
    {"limits", limits},
};
