// The plugin's attributes: out of TensorRT's fields, and into them for a plan.
#pragma once

#include <array>
#include <cstdint>

#include "tensorrt_interface.h"

namespace samrt {

struct AttentionFields {
  int32_t num_heads;
  int32_t head_dim;
  int32_t window_size;
  int32_t kernels_version;  // in plans only: of the library that built one
};

struct FieldName {
  const char* name;
  int32_t AttentionFields::*member;
};

// kernels_version last: a graph does not have it.
constexpr std::array<FieldName, 4> kFieldNames{{{"num_heads", &AttentionFields::num_heads},
                                                {"head_dim", &AttentionFields::head_dim},
                                                {"window_size", &AttentionFields::window_size},
                                                {"kernels_version", &AttentionFields::kernels_version}}};
constexpr int32_t kGraphFieldCount = kFieldNames.size() - 1;

// Throws std::invalid_argument where a field is missing, unknown, given twice, of another type, or out of range, and
// where a plan was built with other kernels.
AttentionFields read_fields(const nvinfer1::PluginFieldCollection* fields, nvinfer1::TensorRTPhase phase);

}  // namespace samrt
