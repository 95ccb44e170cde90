#include "attention_fields.h"

#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>

#include "../samrt_kernels.h"

namespace samrt {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;

int32_t int32_of(const PluginField& field) {
  if (field.type != PluginFieldType::kINT32 || field.length != 1 || !field.data) {
    throw std::invalid_argument(std::string("attribute ") + field.name + " must be one 32-bit integer");
  }
  int32_t value;
  std::memcpy(&value, field.data, sizeof value);  // a plan's fields need not be aligned
  return value;
}

std::optional<int32_t> find_field(const PluginFieldCollection& fields, const char* name) {
  std::optional<int32_t> value;
  for (int32_t i = 0; i < fields.nbFields; ++i) {
    if (!fields.fields[i].name || std::strcmp(fields.fields[i].name, name) != 0) continue;
    if (value) throw std::invalid_argument(std::string("attribute ") + name + " is given twice");
    value = int32_of(fields.fields[i]);
  }
  return value;
}

void refuse_unknown(const PluginFieldCollection& fields, int32_t known_count) {
  for (int32_t i = 0; i < fields.nbFields; ++i) {
    const char* name = fields.fields[i].name ? fields.fields[i].name : "";
    bool known = false;
    for (int32_t j = 0; j < known_count; ++j) known = known || std::strcmp(name, kFieldNames[j].name) == 0;
    if (!known) {
      throw std::invalid_argument(std::string("unknown attribute '") + name +
                                  "'; the attributes are num_heads, head_dim and window_size");
    }
  }
}

void check_version(const PluginFieldCollection& fields) {
  const std::optional<int32_t> version = find_field(fields, kFieldNames.back().name);
  if (version == samrt_kernels_version()) return;
  throw std::invalid_argument("this plan was built with " +
                              (version ? "version " + std::to_string(*version) : std::string("an unknown version")) +
                              " of samrt's kernels, but this library has version " +
                              std::to_string(samrt_kernels_version()) + ": build the engine again with this library");
}

// The kernels say which values they take; a batch of 0 is checked and nothing else.
void check_values(const AttentionFields& fields) {
  samrt_attention_args args{};
  args.grid_h = 1;
  args.grid_w = 1;
  args.heads = fields.num_heads;
  args.head_dim = fields.head_dim;
  args.window = fields.window_size;
  args.format = SAMRT_KERNELS_FP16;
  args.tile = -1;
  if (samrt_attention(&args, nullptr) != SAMRT_KERNELS_OK) throw std::invalid_argument(samrt_kernels_last_error());
}

}  // namespace

AttentionFields read_fields(const PluginFieldCollection* fields, nvinfer1::TensorRTPhase phase) {
  const PluginFieldCollection none{};
  if (!fields) fields = &none;
  const bool in_plan = phase == nvinfer1::TensorRTPhase::kRUNTIME;
  if (in_plan) check_version(*fields);  // first: another version may have other fields

  const int32_t count = in_plan ? kFieldNames.size() : kGraphFieldCount;
  refuse_unknown(*fields, count);
  AttentionFields result{};
  result.kernels_version = samrt_kernels_version();
  for (int32_t i = 0; i < count; ++i) {
    const std::optional<int32_t> value = find_field(*fields, kFieldNames[i].name);
    if (!value) throw std::invalid_argument(std::string("attribute ") + kFieldNames[i].name + " is missing");
    result.*kFieldNames[i].member = *value;
  }
  check_values(result);
  return result;
}

}  // namespace samrt
