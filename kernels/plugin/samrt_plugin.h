// The TensorRT plugin in libsamrt_plugin.so: attention with SAM's decomposed relative position as one layer.
//
// For TensorRT 10.0 and later (IPluginV3) and for TensorRT for RTX; the library links neither, and opening it
// registers nothing. Make TensorRT load it before a graph is parsed or a plan is deserialised:
//
//   C++       IPluginRegistry::loadLibrary("libsamrt_plugin.so")
//   Python    tensorrt.get_plugin_registry().load_library("libsamrt_plugin.so")
//   trtexec   --dynamicPlugins=libsamrt_plugin.so
//
// TensorRT for RTX 1.7 needs libsamrt_rtx_name.so opened before that (cmake/tensorrt_plugin.cmake says why).
//
// TensorRT can also store such libraries in plans (IBuilderConfig::setPluginsToSerialize). Not tried with this library.
//
// Layer "SamrtRelPosAttention", version "1", namespace "" (in ONNX: op type SamrtRelPosAttention)
//
//   attributes, all required, one int32 each
//     num_heads     at least 1
//     head_dim      64 or 80
//     window_size   side of a window in tokens; 0: attention over the whole grid
//
//   inputs, all float16 or all bfloat16, linear format; C = num_heads * head_dim
//     0 qkv         [B, H, W, 3 * C]         bias included; the last axis is [3, num_heads, head_dim]
//     1 qkv_bias    [3 * C]                  query, key and value of the tokens that pad the last windows
//     2 rel_pos_h   [2 * side_h - 1, head_dim]   side_h is window_size, or H
//     3 rel_pos_w   [2 * side_w - 1, head_dim]   side_w is window_size, or W
//
//   output, of the inputs' type
//     0             [B, H, W, C]
//
// With windows, B, H and W may be dynamic. Without windows, the tables' sizes determine H and W, so only B may be dynamic.
// The layer does the window partition, the padding, the scaling and the un-partition. Sums are float32. It needs no
// workspace.
//
// Its tactics are the kernel's tile shapes, which TensorRT times. The first tactic is the default shape on the device that
// runs the plan. TensorRT for RTX uses it, because it times nothing. A plan contains the version of the kernels; a library
// of another version refuses the plan. Errors go to stderr or to the handler of samrt_plugin_on_error, and to the error recorder of an execution
// context.
//
// A program that includes this file includes TensorRT's NvInferRuntime.h before it.
#pragma once

#include "../samrt_kernels.h"

namespace samrt {

constexpr const char* kPluginName = "SamrtRelPosAttention";
constexpr const char* kPluginVersion = "1";
constexpr const char* kPluginNamespace = "";

}  // namespace samrt

// Sends the plugin's errors, one line each, to `handler`. Any thread may call the handler. NULL: to stderr.
using samrt_plugin_error_handler = void (*)(const char* message);
extern "C" SAMRT_KERNELS_API void samrt_plugin_on_error(samrt_plugin_error_handler handler);

// The functions that TensorRT looks for in a plugin library. Programs can also use them to register the creators.
// (TensorRT's own TENSORRTAPI exports nothing outside of TensorRT's build.)
extern "C" SAMRT_KERNELS_API void setLoggerFinder(nvinfer1::ILoggerFinder* finder);
extern "C" SAMRT_KERNELS_API nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);
