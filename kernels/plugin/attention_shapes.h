// What the plugin's inputs have to look like, checked in one place for every phase of TensorRT.
#pragma once

#include <array>
#include <cstdint>

#include "../samrt_kernels.h"
#include "attention_fields.h"
#include "tensorrt_interface.h"

namespace samrt {

enum AttentionInput : int32_t { kQkv, kQkvBias, kRelPosH, kRelPosW, kInputCount };

using AttentionDims = std::array<nvinfer1::Dims, kInputCount>;

// Throws std::invalid_argument where the inputs do not fit together. A dimension of -1 is not known yet and fits.
void check_dims(const AttentionFields& fields, const AttentionDims& dims);

// The same, and the kernel's arguments for it: sizes and number format, no pointers, tile -1. All dimensions are known.
samrt_attention_args attention_args(const AttentionFields& fields, const AttentionDims& dims, nvinfer1::DataType type);

}  // namespace samrt
