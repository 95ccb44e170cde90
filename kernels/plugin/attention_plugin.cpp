#include "attention_plugin.h"

#include <stdexcept>
#include <utility>

#include "../samrt_kernels.h"
#include "attention_shapes.h"
#include "plugin_errors.h"
#include "samrt_plugin.h"

namespace samrt {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;

constexpr int32_t kOutputCount = 1;

// Tactics are numbered from 1; TensorRT uses 0 if there are none. The default tile shape comes first, because a builder
// that times nothing (TensorRT for RTX) uses the first tactic. Then the device that runs the plan determines the shape.
constexpr int32_t kDefaultTactic = 1, kFirstTileTactic = 2;
constexpr int32_t kDefaultTile = -1;

void check_counts(int32_t inputs, int32_t outputs) {
  if (inputs == kInputCount && outputs == kOutputCount) return;
  throw std::invalid_argument("the layer has " + std::to_string(inputs) + " inputs and " + std::to_string(outputs) +
                              " outputs; it must have the inputs qkv, qkv_bias, rel_pos_h and rel_pos_w, and one output");
}

void throw_on(int kernels_code) {
  if (kernels_code != SAMRT_KERNELS_OK) throw std::runtime_error(samrt_kernels_last_error());
}

AttentionDims dims_of(const PluginTensorDesc* inputs) {
  return {inputs[kQkv].dims, inputs[kQkvBias].dims, inputs[kRelPosH].dims, inputs[kRelPosW].dims};
}

AttentionDims dims_of(const DynamicPluginTensorDesc* inputs, Dims DynamicPluginTensorDesc::*bound) {
  return {inputs[kQkv].*bound, inputs[kQkvBias].*bound, inputs[kRelPosH].*bound, inputs[kRelPosW].*bound};
}

// The constant dimensions; -1 for all others.
AttentionDims dims_of(const DimsExprs* inputs) {
  AttentionDims result{};
  for (int32_t i = 0; i < kInputCount; ++i) {
    result[i].nbDims = inputs[i].nbDims;
    for (int32_t axis = 0; axis < inputs[i].nbDims; ++axis) {
      result[i].d[axis] = inputs[i].d[axis]->isConstant() ? inputs[i].d[axis]->getConstantValue() : -1;
    }
  }
  return result;
}

}  // namespace

template <typename Body>
int32_t AttentionPlugin::attempt(Body body) const noexcept {
  return guarded(layer_.c_str(), recorder(), 1, [&body] {
    body();
    return 0;
  });
}

AttentionPlugin::AttentionPlugin(std::string layer, const AttentionFields& fields)
    : layer_(std::move(layer)), fields_(fields) {
  for (const FieldName& field : kFieldNames) {
    description_ += std::string(description_.empty() ? "" : ",") + field.name + "=" +
                    std::to_string(fields_.*field.member);
  }
}

nvinfer1::IPluginCapability* AttentionPlugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
  switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE:
      return static_cast<nvinfer1::IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD:
      return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME:
      return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
  }
  report_error(layer_.c_str(), "TensorRT requested a capability that this plugin does not have", recorder());
  return nullptr;
}

nvinfer1::IPluginV3* AttentionPlugin::clone() noexcept {
  return guarded<nvinfer1::IPluginV3*>(layer_.c_str(), recorder(), nullptr,
                                       [this] { return new AttentionPlugin(*this); });
}

const char* AttentionPlugin::getPluginName() const noexcept { return kPluginName; }
const char* AttentionPlugin::getPluginVersion() const noexcept { return kPluginVersion; }
const char* AttentionPlugin::getPluginNamespace() const noexcept { return kPluginNamespace; }

int32_t AttentionPlugin::getNbOutputs() const noexcept { return kOutputCount; }

int32_t AttentionPlugin::getOutputDataTypes(DataType* output_types, int32_t output_count, const DataType* input_types,
                                            int32_t input_count) const noexcept {
  return attempt([&] {
    check_counts(input_count, output_count);
    output_types[0] = input_types[kQkv];
  });
}

int32_t AttentionPlugin::getOutputShapes(const DimsExprs* inputs, int32_t input_count, const DimsExprs*, int32_t,
                                         DimsExprs* outputs, int32_t output_count,
                                         nvinfer1::IExprBuilder& builder) noexcept {
  return attempt([&] {
    check_counts(input_count, output_count);
    check_dims(fields_, dims_of(inputs));
    outputs[0] = inputs[kQkv];
    outputs[0].d[3] = builder.constant(int64_t{fields_.num_heads} * fields_.head_dim);
  });
}

bool AttentionPlugin::supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* descriptions,
                                                int32_t input_count, int32_t output_count) noexcept {
  return guarded(layer_.c_str(), recorder(), false, [&] {
    check_counts(input_count, output_count);
    const PluginTensorDesc& description = descriptions[position].desc;
    if (description.format != nvinfer1::TensorFormat::kLINEAR) return false;
    if (position == 0) return description.type == DataType::kHALF || description.type == DataType::kBF16;
    return description.type == descriptions[0].desc.type;
  });
}

int32_t AttentionPlugin::configurePlugin(const DynamicPluginTensorDesc* inputs, int32_t input_count,
                                         const DynamicPluginTensorDesc*, int32_t output_count) noexcept {
  return attempt([&] {
    check_counts(input_count, output_count);
    std::vector<samrt_attention_args> sizes;
    for (auto bound : {&DynamicPluginTensorDesc::min, &DynamicPluginTensorDesc::opt, &DynamicPluginTensorDesc::max}) {
      sizes.push_back(attention_args(fields_, dims_of(inputs, bound), inputs[kQkv].desc.type));
      throw_on(samrt_attention_check(&sizes.back()));
    }
    tactics_ = {kDefaultTactic};
    for (int32_t tile = 0; tile < samrt_attention_tiles(); ++tile) {
      bool fits = true;
      for (samrt_attention_args args : sizes) {
        args.tile = tile;
        fits = fits && samrt_attention_check(&args) == SAMRT_KERNELS_OK;
      }
      if (fits) tactics_.push_back(tile + kFirstTileTactic);
    }
  });
}

size_t AttentionPlugin::getWorkspaceSize(const DynamicPluginTensorDesc*, int32_t, const DynamicPluginTensorDesc*,
                                         int32_t) const noexcept {
  return 0;
}

int32_t AttentionPlugin::getNbTactics() noexcept { return static_cast<int32_t>(tactics_.size()); }

int32_t AttentionPlugin::getValidTactics(int32_t* tactics, int32_t count) noexcept {
  return attempt([&] {
    if (count != getNbTactics()) {
      throw std::invalid_argument("TensorRT requested " + std::to_string(count) + " tactics, but there are " +
                                  std::to_string(getNbTactics()));
    }
    for (int32_t i = 0; i < count; ++i) tactics[i] = tactics_[i];
  });
}

const char* AttentionPlugin::getTimingCacheID() noexcept { return description_.c_str(); }
const char* AttentionPlugin::getMetadataString() noexcept { return description_.c_str(); }

int32_t AttentionPlugin::setTactic(int32_t tactic) noexcept {
  return attempt([&] {
    const int32_t last = kFirstTileTactic + samrt_attention_tiles() - 1;
    if (tactic < 0 || tactic > last) {
      throw std::invalid_argument("tactic " + std::to_string(tactic) + " is not in 0 to " + std::to_string(last) +
                                  ": build the engine again");
    }
    tile_ = tactic < kFirstTileTactic ? kDefaultTile : tactic - kFirstTileTactic;
  });
}

int32_t AttentionPlugin::onShapeChange(const PluginTensorDesc* inputs, int32_t input_count, const PluginTensorDesc*,
                                       int32_t output_count) noexcept {
  return attempt([&] {
    check_counts(input_count, output_count);
    const samrt_attention_args args = attention_args(fields_, dims_of(inputs), inputs[kQkv].type);
    throw_on(samrt_attention_check(&args));
  });
}

int32_t AttentionPlugin::enqueue(const PluginTensorDesc* input_descriptions, const PluginTensorDesc*,
                                 const void* const* inputs, void* const* outputs, void*,
                                 cudaStream_t stream) noexcept {
  return attempt([&] {
    samrt_attention_args args = attention_args(fields_, dims_of(input_descriptions), input_descriptions[kQkv].type);
    args.qkv = inputs[kQkv];
    args.qkv_bias = inputs[kQkvBias];
    args.rel_pos_h = inputs[kRelPosH];
    args.rel_pos_w = inputs[kRelPosW];
    args.out = outputs[0];
    args.tile = tile_;
    throw_on(samrt_attention(&args, stream));
  });
}

nvinfer1::IPluginV3* AttentionPlugin::attachToContext(nvinfer1::IPluginResourceContext* context) noexcept {
  return guarded<nvinfer1::IPluginV3*>(layer_.c_str(), recorder(), nullptr, [this, context] {
    auto* attached = new AttentionPlugin(*this);
    attached->context_ = context;
    return attached;
  });
}

const nvinfer1::PluginFieldCollection* AttentionPlugin::getFieldsToSerialize() noexcept {
  for (size_t i = 0; i < kFieldNames.size(); ++i) {
    plan_fields_[i] = nvinfer1::PluginField(kFieldNames[i].name, &(fields_.*kFieldNames[i].member),
                                            nvinfer1::PluginFieldType::kINT32, 1);
  }
  plan_field_collection_.nbFields = kFieldNames.size();
  plan_field_collection_.fields = plan_fields_.data();
  return &plan_field_collection_;
}

}  // namespace samrt
