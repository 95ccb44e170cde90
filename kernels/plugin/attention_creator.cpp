// What makes AttentionPlugin, and the list of creators that TensorRT asks a plugin library for.
#include <array>

#include "attention_fields.h"
#include "attention_plugin.h"
#include "plugin_errors.h"
#include "samrt_plugin.h"
#include "tensorrt_interface.h"

namespace samrt {
namespace {

class AttentionCreator final : public nvinfer1::IPluginCreatorV3One {
 public:
  AttentionCreator() {
    for (int32_t i = 0; i < kGraphFieldCount; ++i) {
      fields_[i] = nvinfer1::PluginField(kFieldNames[i].name, nullptr, nvinfer1::PluginFieldType::kINT32, 1);
    }
    collection_.nbFields = kGraphFieldCount;
    collection_.fields = fields_.data();
  }

  nvinfer1::IPluginV3* createPlugin(const char* name, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase phase) noexcept override {
    const char* layer = name ? name : "";
    return guarded<nvinfer1::IPluginV3*>(
        layer, nullptr, nullptr, [&] { return new AttentionPlugin(layer, read_fields(fields, phase)); });
  }

  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
  const char* getPluginName() const noexcept override { return kPluginName; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return kPluginNamespace; }

 private:
  std::array<nvinfer1::PluginField, kGraphFieldCount> fields_{};
  nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace
}  // namespace samrt

extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static samrt::AttentionCreator creator;
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
  count = 1;
  return creators;
}
