// The plugin as the tests hold it: created from fields, its three capabilities at hand, and descriptions of tensors.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "fakes.h"
#include "plugin/samrt_plugin.h"

struct AttentionCase {
  int batch, grid_h, grid_w, heads, head_dim, window;
  bool bfloat16;
  int side_h() const { return window ? window : grid_h; }
  int side_w() const { return window ? window : grid_w; }
};

void keep_error(const char* message);  // a handler of the plugin's errors, for `reported` and `take_errors`
std::string take_errors();

// Of the host build: what the device claims to be; kSharedBytes with 9.0 is what it begins with.
extern "C" void samrt_host_set_device(int capability, int shared_bytes);
constexpr int kSharedBytes = 227 * 1024;

using Fields = std::vector<nvinfer1::PluginField>;

nvinfer1::IPluginCreatorV3One& creator();

// "num_heads", "head_dim", "window_size" of a case. They point into it.
Fields graph_fields(const AttentionCase& c);

std::unique_ptr<nvinfer1::IPluginV3> create(const Fields& fields,
                                            nvinfer1::TensorRTPhase phase = nvinfer1::TensorRTPhase::kBUILD);

template <typename Capability>
Capability& capability(nvinfer1::IPluginV3& plugin, nvinfer1::PluginCapabilityType type) {
  return *static_cast<Capability*>(plugin.getCapabilityInterface(type));
}
nvinfer1::IPluginV3OneCore& core(nvinfer1::IPluginV3& plugin);
nvinfer1::IPluginV3OneBuild& build(nvinfer1::IPluginV3& plugin);
nvinfer1::IPluginV3OneRuntime& runtime(nvinfer1::IPluginV3& plugin);

// qkv, qkv_bias, rel_pos_h, rel_pos_w, and the output.
constexpr int kInputs = 4, kTensors = 5;
using Descriptions = std::array<nvinfer1::PluginTensorDesc, kTensors>;
using DynamicDescriptions = std::array<nvinfer1::DynamicPluginTensorDesc, kTensors>;

Descriptions describe(const AttentionCase& c);
// A profile from `min` to `max`, whose optimum is `max`; dimensions in which they differ are -1 in the graph.
DynamicDescriptions describe(const AttentionCase& min, const AttentionCase& max);

// True where an error since the last question holds `text`; none is kept afterwards.
bool reported(const std::string& text);

// The groups of tests; each counts what fails in `failures`.
void test_creator();
void test_building();
void test_running();
