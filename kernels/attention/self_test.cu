// samrt_attention_self_test: small attentions on the device, compared with float64 on the host.
#include "../samrt_self_test.h"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <vector>

#include "../common/cuda_result.h"
#include "../common/device.cuh"

namespace samrt {
namespace {

struct Case {
  int batch, grid_h, grid_w, heads, window;
  int side_h() const { return window ? window : grid_h; }
  int side_w() const { return window ? window : grid_w; }
  size_t tokens() const { return size_t(grid_h) * grid_w; }
};

// No side is a multiple of a tile. The windows are padded below and right.
constexpr Case kCases[] = {
    {2, 3, 19, 2, 0},
    {1, 13, 15, 2, 14},
    {1, 66, 1, 1, 0},  // more shared memory than a kernel gets without cudaFuncSetAttribute
    {1, 1, 70, 1, 0},  // two strips of columns
};
constexpr int kHeadDims[] = {64, 80};

template <typename T>
struct Format;

template <>
struct Format<__half> {
  static constexpr int kCode = SAMRT_KERNELS_FP16;
  static constexpr const char* kName = "fp16";
  static constexpr double kRoundoff = 0x1p-11;
  static __half from_float(float value) { return __float2half_rn(value); }
  static float to_float(__half value) { return __half2float(value); }
};

template <>
struct Format<__nv_bfloat16> {
  static constexpr int kCode = SAMRT_KERNELS_BF16;
  static constexpr const char* kName = "bf16";
  static constexpr double kRoundoff = 0x1p-8;
  static __nv_bfloat16 from_float(float value) { return __float2bfloat16_rn(value); }
  static float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
};

void throw_on(cudaError_t status) {
  if (int code = cuda_result("attention self test", status)) throw code;
}

// A tensor on the host and on the device. The host's values are exact in its number format.
template <typename T>
class Tensor {
 public:
  // Uniform in [-scale, scale]; at least one value.
  Tensor(size_t count, double scale, uint32_t seed) : values_(count) {
    for (double& value : values_) {
      seed = seed * 1664525u + 1013904223u;
      value = Format<T>::to_float(Format<T>::from_float(float(scale * (double(seed >> 8) * 0x1p-23 - 1.0))));
    }
    throw_on(cudaMalloc(&device_, count * sizeof(T)));
  }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;
  ~Tensor() { cudaFree(device_); }

  T* device() const { return device_; }
  double operator[](size_t index) const { return values_[index]; }
  size_t count() const { return values_.size(); }

  void upload(cudaStream_t stream) const {
    std::vector<T> elements;
    for (double value : values_) elements.push_back(Format<T>::from_float(float(value)));
    throw_on(cudaMemcpyAsync(device_, elements.data(), elements.size() * sizeof(T), cudaMemcpyHostToDevice, stream));
    throw_on(cudaStreamSynchronize(stream));
  }

  // Replaces the host's values by the device's.
  void download(cudaStream_t stream) {
    std::vector<T> elements(values_.size());
    throw_on(cudaMemcpyAsync(elements.data(), device_, elements.size() * sizeof(T), cudaMemcpyDeviceToHost, stream));
    throw_on(cudaStreamSynchronize(stream));
    for (size_t i = 0; i < elements.size(); ++i) values_[i] = Format<T>::to_float(elements[i]);
  }

  // Fills the device memory with NaN, so that an element that no thread writes is found.
  void spoil(cudaStream_t stream) { throw_on(cudaMemsetAsync(device_, 0xff, values_.size() * sizeof(T), stream)); }

 private:
  std::vector<double> values_;
  T* device_ = nullptr;
};

// Product, row term and column term all spread the scores over several units, so that each of them affects which keys
// have weight.
constexpr double kQkvScale = 2.0, kTableScale = 0.25;

template <typename T>
struct Inputs {
  Inputs(const Case& c, int head_dim)
      : qkv(c.batch * c.tokens() * 3 * c.heads * head_dim, kQkvScale, 1),
        qkv_bias(size_t(3) * c.heads * head_dim, kQkvScale, 2),
        rel_pos_h((2 * size_t(c.side_h()) - 1) * head_dim, kTableScale, 3),
        rel_pos_w((2 * size_t(c.side_w()) - 1) * head_dim, kTableScale, 4) {}
  Tensor<T> qkv, qkv_bias, rel_pos_h, rel_pos_w;
};

// The definition in samrt_kernels.h, one query at a time.
template <typename T>
class Reference {
 public:
  Reference(const Case& c, int head_dim, const Inputs<T>& inputs) : c_(c), head_dim_(head_dim), inputs_(inputs) {}

  // `out` [batch, grid_h * grid_w, heads * head_dim].
  std::vector<double> compute() const {
    std::vector<double> out;
    for (int image = 0; image < c_.batch; ++image) {
      for (int row = 0; row < c_.grid_h; ++row) {
        for (int column = 0; column < c_.grid_w; ++column) {
          for (int head = 0; head < c_.heads; ++head) attend(image, row, column, head, out);
        }
      }
    }
    return out;
  }

 private:
  // Element `i` of the query (part 0), key (1) or value (2) of a token. A token outside the grid is padding.
  double element(int image, int row, int column, int part, int head, int i) const {
    const size_t offset = (size_t(part) * c_.heads + head) * head_dim_ + i;
    if (row >= c_.grid_h || column >= c_.grid_w) return inputs_.qkv_bias[offset];
    const size_t token = (size_t(image) * c_.grid_h + row) * c_.grid_w + column;
    return inputs_.qkv[token * 3 * c_.heads * head_dim_ + offset];
  }

  double score(int image, int row, int column, int key_row, int key_column, int head) const {
    const size_t table_row = row - key_row + c_.side_h() - 1, table_column = column - key_column + c_.side_w() - 1;
    double product = 0, bias = 0;
    for (int i = 0; i < head_dim_; ++i) {
      const double query = element(image, row, column, 0, head, i);
      product += query * element(image, key_row, key_column, 1, head, i);
      bias += query * (inputs_.rel_pos_h[table_row * head_dim_ + i] + inputs_.rel_pos_w[table_column * head_dim_ + i]);
    }
    return product / std::sqrt(double(head_dim_)) + bias;
  }

  void attend(int image, int row, int column, int head, std::vector<double>& out) const {
    const int top = row / c_.side_h() * c_.side_h(), left = column / c_.side_w() * c_.side_w();
    double sum = 0;
    std::vector<double> result(head_dim_);
    for (int key_row = top; key_row < top + c_.side_h(); ++key_row) {
      for (int key_column = left; key_column < left + c_.side_w(); ++key_column) {
        const double weight = std::exp(score(image, row, column, key_row, key_column, head));
        sum += weight;
        for (int i = 0; i < head_dim_; ++i) {
          result[i] += weight * element(image, key_row, key_column, 2, head, i);
        }
      }
    }
    for (double value : result) out.push_back(value / sum);
  }

  const Case& c_;
  const int head_dim_;
  const Inputs<T>& inputs_;
};

// After the scores, values are rounded to 16 bits twice: the probabilities and the result. Each rounding changes values
// of at most kQkvScale by at most kRoundoff. A quarter more allows for float32 sums and the approximate exponential.
template <typename T>
constexpr double kAllowedError = 2.5 * Format<T>::kRoundoff * kQkvScale;

template <typename T>
int compare(const Tensor<T>& out, const std::vector<double>& expected, const char* what) {
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = std::abs(out[i] - expected[i]);
    if (error <= kAllowedError<T>) continue;  // false for NaN
    return fail(SAMRT_KERNELS_WRONG, "attention self test: %s: element %zu is %g, expected %g within %g", what, i,
                out[i], expected[i], kAllowedError<T>);
  }
  return SAMRT_KERNELS_OK;
}

template <typename T>
int run_case(const Case& c, int head_dim, cudaStream_t stream) {
  const Inputs<T> inputs(c, head_dim);
  for (const Tensor<T>* tensor : {&inputs.qkv, &inputs.qkv_bias, &inputs.rel_pos_h, &inputs.rel_pos_w}) {
    tensor->upload(stream);
  }
  const std::vector<double> expected = Reference<T>(c, head_dim, inputs).compute();
  Tensor<T> out(expected.size(), 0.0, 0);
  for (int tile = -1; tile < samrt_attention_tiles(); ++tile) {
    if (tile >= 0 && !samrt_attention_has_tile(Format<T>::kCode, head_dim, tile, 1)) continue;
    char what[128];
    snprintf(what, sizeof what, "%s, head_dim %d, grid %d x %d, window %d, tile %s", Format<T>::kName, head_dim,
             c.grid_h, c.grid_w, c.window, tile < 0 ? "default" : samrt_attention_tile_name(tile));
    out.spoil(stream);
    const samrt_attention_args args{inputs.qkv.device(), inputs.qkv_bias.device(), inputs.rel_pos_h.device(),
                                    inputs.rel_pos_w.device(), out.device(), c.batch, c.grid_h, c.grid_w, c.heads,
                                    head_dim, c.window, Format<T>::kCode, tile};
    if (int code = samrt_attention(&args, stream)) return code;
    out.download(stream);
    if (int code = compare(out, expected, what)) return code;
  }
  return SAMRT_KERNELS_OK;
}

int self_test(cudaStream_t stream) {
  for (int head_dim : kHeadDims) {
    for (const Case& c : kCases) {
      if (int code = run_case<__half>(c, head_dim, stream)) return code;
      if (int code = run_case<__nv_bfloat16>(c, head_dim, stream)) return code;
    }
  }
  return SAMRT_KERNELS_OK;
}

}  // namespace
}  // namespace samrt

extern "C" int samrt_attention_self_test(samrt_stream stream) {
  try {
    return samrt::self_test(static_cast<cudaStream_t>(stream));
  } catch (int code) {  // thrown by throw_on
    return code;
  } catch (const std::exception& error) {
    return samrt::fail(SAMRT_KERNELS_CUDA, "attention self test: %s", error.what());
  }
}
