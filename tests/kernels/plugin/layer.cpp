#include "layer.h"

#include <cstdio>
#include <utility>

namespace {

nvinfer1::Dims dims(std::initializer_list<int64_t> sizes) {
  nvinfer1::Dims result{};
  for (int64_t size : sizes) result.d[result.nbDims++] = size;
  return result;
}

std::string errors;

}  // namespace

void keep_error(const char* message) { errors += std::string(message) + "\n"; }
std::string take_errors() { return std::exchange(errors, ""); }

nvinfer1::IPluginCreatorV3One& creator() {
  int32_t count = 0;
  return *static_cast<nvinfer1::IPluginCreatorV3One*>(getCreators(count)[0]);
}

Fields graph_fields(const AttentionCase& c) {
  constexpr auto kType = nvinfer1::PluginFieldType::kINT32;
  return {{"num_heads", &c.heads, kType, 1}, {"head_dim", &c.head_dim, kType, 1}, {"window_size", &c.window, kType, 1}};
}

std::unique_ptr<nvinfer1::IPluginV3> create(const Fields& fields, nvinfer1::TensorRTPhase phase) {
  nvinfer1::PluginFieldCollection collection{};
  collection.nbFields = static_cast<int32_t>(fields.size());
  collection.fields = fields.data();
  return std::unique_ptr<nvinfer1::IPluginV3>(creator().createPlugin("blocks.0.attn", &collection, phase));
}

nvinfer1::IPluginV3OneCore& core(nvinfer1::IPluginV3& plugin) {
  return capability<nvinfer1::IPluginV3OneCore>(plugin, nvinfer1::PluginCapabilityType::kCORE);
}
nvinfer1::IPluginV3OneBuild& build(nvinfer1::IPluginV3& plugin) {
  return capability<nvinfer1::IPluginV3OneBuild>(plugin, nvinfer1::PluginCapabilityType::kBUILD);
}
nvinfer1::IPluginV3OneRuntime& runtime(nvinfer1::IPluginV3& plugin) {
  return capability<nvinfer1::IPluginV3OneRuntime>(plugin, nvinfer1::PluginCapabilityType::kRUNTIME);
}

Descriptions describe(const AttentionCase& c) {
  const auto type = c.bfloat16 ? nvinfer1::DataType::kBF16 : nvinfer1::DataType::kHALF;
  const int64_t width = int64_t{c.heads} * c.head_dim;
  Descriptions result{};
  for (nvinfer1::PluginTensorDesc& description : result) {
    description.type = type;
    description.format = nvinfer1::TensorFormat::kLINEAR;
    description.scale = 1.f;
  }
  result[0].dims = dims({c.batch, c.grid_h, c.grid_w, 3 * width});
  result[1].dims = dims({3 * width});
  result[2].dims = dims({2 * c.side_h() - 1, c.head_dim});
  result[3].dims = dims({2 * c.side_w() - 1, c.head_dim});
  result[4].dims = dims({c.batch, c.grid_h, c.grid_w, width});
  return result;
}

DynamicDescriptions describe(const AttentionCase& min, const AttentionCase& max) {
  const Descriptions low = describe(min), high = describe(max);
  DynamicDescriptions result{};
  for (int i = 0; i < kTensors; ++i) {
    result[i].desc = high[i];
    result[i].min = low[i].dims;
    result[i].opt = result[i].max = high[i].dims;
    for (int axis = 0; axis < high[i].dims.nbDims; ++axis) {
      if (low[i].dims.d[axis] != high[i].dims.d[axis]) result[i].desc.dims.d[axis] = -1;
    }
  }
  return result;
}

bool reported(const std::string& text) {
  const std::string log = take_errors();
  if (log.find(text) != std::string::npos) return true;
  std::printf("reported was: %s\n", log.empty() ? "nothing" : log.c_str());
  return false;
}
