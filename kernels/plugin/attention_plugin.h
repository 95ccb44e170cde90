// The layer that samrt_plugin.h describes, as TensorRT's IPluginV3.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "attention_fields.h"
#include "tensorrt_interface.h"

namespace samrt {

class AttentionPlugin final : public nvinfer1::IPluginV3,
                              public nvinfer1::IPluginV3OneCore,
                              public nvinfer1::IPluginV3OneBuild,
                              public nvinfer1::IPluginV3OneRuntime {
 public:
  // `layer` is the layer's name, for messages.
  AttentionPlugin(std::string layer, const AttentionFields& fields);

  // IPluginV3
  nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
  nvinfer1::IPluginV3* clone() noexcept override;

  // IPluginV3OneCore
  const char* getPluginName() const noexcept override;
  const char* getPluginVersion() const noexcept override;
  const char* getPluginNamespace() const noexcept override;

  // IPluginV3OneBuild
  int32_t getNbOutputs() const noexcept override;
  int32_t getOutputDataTypes(nvinfer1::DataType* output_types, int32_t output_count,
                             const nvinfer1::DataType* input_types, int32_t input_count) const noexcept override;
  int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count,
                          const nvinfer1::DimsExprs* shape_inputs, int32_t shape_input_count,
                          nvinfer1::DimsExprs* outputs, int32_t output_count,
                          nvinfer1::IExprBuilder& builder) noexcept override;
  bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* descriptions,
                                 int32_t input_count, int32_t output_count) noexcept override;
  int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                          const nvinfer1::DynamicPluginTensorDesc* outputs, int32_t output_count) noexcept override;
  size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                          const nvinfer1::DynamicPluginTensorDesc* outputs,
                          int32_t output_count) const noexcept override;
  int32_t getNbTactics() noexcept override;
  int32_t getValidTactics(int32_t* tactics, int32_t count) noexcept override;
  const char* getTimingCacheID() noexcept override;
  const char* getMetadataString() noexcept override;

  // IPluginV3OneRuntime
  int32_t setTactic(int32_t tactic) noexcept override;
  int32_t onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t input_count,
                        const nvinfer1::PluginTensorDesc* outputs, int32_t output_count) noexcept override;
  int32_t enqueue(const nvinfer1::PluginTensorDesc* input_descriptions,
                  const nvinfer1::PluginTensorDesc* output_descriptions, const void* const* inputs,
                  void* const* outputs, void* workspace, cudaStream_t stream) noexcept override;
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override;

 private:
  // `body` returns nothing; 0, or 1 with a report where it throws.
  template <typename Body>
  int32_t attempt(Body body) const noexcept;
  // Asked for anew each time: a context may get another one at any time.
  nvinfer1::IErrorRecorder* recorder() const noexcept { return context_ ? context_->getErrorRecorder() : nullptr; }

  std::string layer_;
  AttentionFields fields_;
  std::string description_;       // of the fields, for the timing cache and for the engine inspector
  std::vector<int32_t> tactics_;  // of the last configured profile: the default shape, and each tile shape that fits
  int32_t tile_ = -1;             // of the tactic; -1: the default shape
  nvinfer1::IPluginResourceContext* context_ = nullptr;  // the execution context's, once attached

  std::array<nvinfer1::PluginField, kFieldNames.size()> plan_fields_{};
  nvinfer1::PluginFieldCollection plan_field_collection_{};
};

}  // namespace samrt
