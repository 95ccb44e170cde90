#include "attention_shapes.h"

#include <stdexcept>
#include <string>

namespace samrt {
namespace {

constexpr const char* kInputNames[kInputCount] = {"qkv", "qkv_bias", "rel_pos_h", "rel_pos_w"};
constexpr int32_t kInputRanks[kInputCount] = {4, 1, 2, 2};

std::string text(const nvinfer1::Dims& dims) {
  std::string result = "[";
  for (int32_t i = 0; i < dims.nbDims; ++i) result += (i ? ", " : "") + std::to_string(dims.d[i]);
  return result + "]";
}

void expect(const AttentionDims& dims, AttentionInput input, int32_t axis, int64_t wanted, const std::string& because) {
  const int64_t found = dims[input].d[axis];
  if (found == -1 || found == wanted) return;
  throw std::invalid_argument(std::string(kInputNames[input]) + " is " + text(dims[input]) + "; its dimension " +
                              std::to_string(axis) + " must be " + std::to_string(wanted) + ": " + because);
}

void check_table(const AttentionFields& fields, const AttentionDims& dims, AttentionInput table, int32_t grid_axis) {
  expect(dims, table, 1, fields.head_dim, "head_dim");
  const int64_t grid = dims[kQkv].d[grid_axis];
  if (fields.window_size > 0) {
    expect(dims, table, 0, 2 * int64_t{fields.window_size} - 1, "2 * window_size - 1");
  } else if (grid != -1) {
    expect(dims, table, 0, 2 * grid - 1,
           "2 * side - 1 for a grid of side " + std::to_string(grid) +
               "; export the model for this image size, because tables are not interpolated");
  }
}

int32_t to_int32(int64_t value) {
  if (value < 0 || value > INT32_MAX) throw std::invalid_argument("qkv has a dimension of " + std::to_string(value));
  return static_cast<int32_t>(value);
}

}  // namespace

void check_dims(const AttentionFields& fields, const AttentionDims& dims) {
  for (int32_t i = 0; i < kInputCount; ++i) {
    if (dims[i].nbDims == kInputRanks[i]) continue;
    throw std::invalid_argument(std::string(kInputNames[i]) + " is " + text(dims[i]) + "; it must have " +
                                std::to_string(kInputRanks[i]) + " dimensions");
  }
  const int64_t width = 3 * int64_t{fields.num_heads} * fields.head_dim;
  expect(dims, kQkv, 3, width, "3 * num_heads * head_dim");
  expect(dims, kQkvBias, 0, width, "3 * num_heads * head_dim");
  check_table(fields, dims, kRelPosH, 1);
  check_table(fields, dims, kRelPosW, 2);
}

samrt_attention_args attention_args(const AttentionFields& fields, const AttentionDims& dims, nvinfer1::DataType type) {
  check_dims(fields, dims);
  samrt_attention_args args{};
  args.batch = to_int32(dims[kQkv].d[0]);
  args.grid_h = to_int32(dims[kQkv].d[1]);
  args.grid_w = to_int32(dims[kQkv].d[2]);
  args.heads = fields.num_heads;
  args.head_dim = fields.head_dim;
  args.window = fields.window_size;
  args.format = type == nvinfer1::DataType::kBF16 ? SAMRT_KERNELS_BF16 : SAMRT_KERNELS_FP16;
  args.tile = -1;
  return args;
}

}  // namespace samrt
