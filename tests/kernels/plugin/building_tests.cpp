// What TensorRT's builder asks: types, formats, shapes, tactics.
#include <algorithm>

#include "layer.h"
#include "samrt_kernels.h"

namespace {

using nvinfer1::DataType;

constexpr AttentionCase kGlobal{2, 9, 20, 2, 64, 0, false};
constexpr AttentionCase kWindowed{2, 15, 17, 2, 80, 14, true};

bool supports(nvinfer1::IPluginV3& plugin, const DynamicDescriptions& descriptions) {
  for (int position = 0; position < kTensors; ++position) {
    if (!build(plugin).supportsFormatCombination(position, descriptions.data(), kInputs, 1)) return false;
  }
  return true;
}

void negotiates_formats() {
  const auto plugin = create(graph_fields(kGlobal));
  CHECK(build(*plugin).getNbOutputs() == 1);
  for (const DataType type : {DataType::kHALF, DataType::kBF16, DataType::kFLOAT}) {
    DynamicDescriptions all = describe(kGlobal, kGlobal);
    for (auto& description : all) description.desc.type = type;
    CHECK(supports(*plugin, all) == (type != DataType::kFLOAT));
    DataType output = DataType::kFLOAT;
    const DataType inputs[kInputs] = {type, type, type, type};
    CHECK(build(*plugin).getOutputDataTypes(&output, 1, inputs, kInputs) == 0 && output == type);
  }
  for (int position = 0; position < kTensors; ++position) {
    DynamicDescriptions mixed = describe(kGlobal, kGlobal);
    mixed[position].desc.type = position == 0 ? DataType::kFLOAT : DataType::kBF16;
    CHECK(!supports(*plugin, mixed));
    DynamicDescriptions vectorized = describe(kGlobal, kGlobal);
    vectorized[position].desc.format = nvinfer1::TensorFormat::kCHW2;
    CHECK(!supports(*plugin, vectorized));
  }
  const DynamicDescriptions descriptions = describe(kGlobal, kGlobal);
  CHECK(!build(*plugin).supportsFormatCombination(0, descriptions.data(), 3, 1));
  CHECK(reported("3 inputs and 1 outputs"));
  CHECK(build(*plugin).getWorkspaceSize(descriptions.data(), kInputs, descriptions.data() + kInputs, 1) == 0);
}

// The shapes of a case as expressions; a dimension of -1 is dynamic.
struct Expressions {
  explicit Expressions(const Descriptions& descriptions) {
    for (int i = 0; i < kInputs; ++i) {
      inputs[i].nbDims = descriptions[i].dims.nbDims;
      for (int axis = 0; axis < inputs[i].nbDims; ++axis) {
        inputs[i].d[axis] = builder.constant(descriptions[i].dims.d[axis]);
      }
    }
  }
  int32_t output_of(nvinfer1::IPluginV3& plugin) {
    return build(plugin).getOutputShapes(inputs, kInputs, nullptr, 0, &output, 1, builder);
  }
  ExprBuilder builder;
  nvinfer1::DimsExprs inputs[kInputs]{}, output{};
};

void infers_shapes() {
  const auto plugin = create(graph_fields(kWindowed));
  Descriptions dynamic = describe(kWindowed);
  for (int axis = 0; axis < 3; ++axis) dynamic[0].dims.d[axis] = -1;
  Expressions expressions(dynamic);
  CHECK(expressions.output_of(*plugin) == 0);
  CHECK(expressions.output.nbDims == 4);
  for (int axis = 0; axis < 3; ++axis) CHECK(expressions.output.d[axis] == expressions.inputs[0].d[axis]);
  CHECK(expressions.output.d[3]->isConstant() && expressions.output.d[3]->getConstantValue() == 160);
  for (nvinfer1::PluginTensorDesc& description : dynamic) {
    for (int axis = 0; axis < description.dims.nbDims; ++axis) description.dims.d[axis] = -1;
  }
  CHECK(Expressions(dynamic).output_of(*plugin) == 0);
  CHECK(build(*plugin).getOutputShapes(expressions.inputs, 3, nullptr, 0, &expressions.output, 1,
                                       expressions.builder) != 0);
  CHECK(reported("3 inputs"));
}

// A graph whose constants do not fit is refused while it is parsed; what is dynamic, when its size is known.
void refuses_shapes(const AttentionCase& c, int tensor, int axis, int64_t size, const std::string& because) {
  const auto plugin = create(graph_fields(c));
  Descriptions wrong = describe(c);
  wrong[tensor].dims.d[axis] = size;
  CHECK(Expressions(wrong).output_of(*plugin) != 0);
  CHECK(reported(because));
  DynamicDescriptions profile = describe(c, c);
  profile[tensor].max.d[axis] = size;
  CHECK(build(*plugin).configurePlugin(profile.data(), kInputs, profile.data() + kInputs, 1) != 0);
  CHECK(reported(because));
  CHECK(runtime(*plugin).onShapeChange(wrong.data(), kInputs, wrong.data() + kInputs, 1) != 0);
  CHECK(reported(because));
}

void refuses_wrong_shapes() {
  refuses_shapes(kGlobal, 0, 3, 256, "qkv is [2, 9, 20, 256]; its dimension 3 has to be 384");
  refuses_shapes(kGlobal, 1, 0, 128, "qkv_bias is [128]; its dimension 0 has to be 384");
  refuses_shapes(kGlobal, 2, 0, 39, "rel_pos_h is [39, 64]; its dimension 0 has to be 17");
  refuses_shapes(kGlobal, 3, 0, 17, "rel_pos_w is [17, 64]; its dimension 0 has to be 39");
  refuses_shapes(kGlobal, 3, 1, 80, "rel_pos_w is [39, 80]; its dimension 1 has to be 64");
  refuses_shapes(kGlobal, 0, 1, 10, "tables are not interpolated");
  refuses_shapes(kWindowed, 2, 0, 29, "rel_pos_h is [29, 80]; its dimension 0 has to be 27: 2 * window_size - 1");

  const auto plugin = create(graph_fields(kGlobal));
  Descriptions flat = describe(kGlobal);
  flat[0].dims.nbDims = 3;
  CHECK(Expressions(flat).output_of(*plugin) != 0);
  CHECK(reported("qkv is [2, 9, 20]; it has to have 4 dimensions"));

  Descriptions huge = describe(kWindowed);
  huge[0].dims.d[0] = int64_t{1} << 40;
  const auto windowed = create(graph_fields(kWindowed));
  CHECK(runtime(*windowed).onShapeChange(huge.data(), kInputs, huge.data() + kInputs, 1) != 0);
  CHECK(reported("1099511627776"));
}

std::vector<int32_t> tactics_of(nvinfer1::IPluginV3& plugin, const DynamicDescriptions& profile) {
  CHECK(build(plugin).configurePlugin(profile.data(), kInputs, profile.data() + kInputs, 1) == 0);
  std::vector<int32_t> tactics(build(plugin).getNbTactics());
  CHECK(build(plugin).getValidTactics(tactics.data(), static_cast<int32_t>(tactics.size())) == 0);
  return tactics;
}

// The default shape first, then every compiled tile shape; of a taller grid, those whose table of row terms still fits
// into shared memory.
void offers_tactics() {
  AttentionCase small = kGlobal, tall = kGlobal;
  small.batch = 1;
  const auto plugin = create(graph_fields(kGlobal));
  const std::vector<int32_t> all = tactics_of(*plugin, describe(small, kGlobal));
  CHECK(!all.empty() && std::is_sorted(all.begin(), all.end()) && all.front() == 1);
  for (int32_t tile = 0; tile < samrt_attention_tiles(); ++tile) {
    const bool compiled = samrt_attention_has_tile(SAMRT_KERNELS_FP16, kGlobal.head_dim, tile, 1);
    CHECK(compiled == (std::count(all.begin(), all.end(), tile + 2) == 1));
  }
  CHECK(build(*plugin).getValidTactics(nullptr, static_cast<int32_t>(all.size()) + 1) != 0);
  CHECK(reported("tactics"));

  tall.grid_h = 160;
  samrt_host_set_device(86, 99 * 1024);
  const std::vector<int32_t> few = tactics_of(*plugin, describe(tall, tall));
  CHECK(few.size() > 1 && few.size() < all.size());
  for (size_t i = 1; i < few.size(); ++i) {
    CHECK(samrt_attention_shared_bytes(tall.head_dim, few[i] - 2, tall.grid_h) <= 99 * 1024);
  }
  // Where there is no device, the smallest decides: 8.6's memory.
  samrt_host_set_device(0, 0);
  CHECK(tactics_of(*plugin, describe(tall, tall)) == few);
  tall.grid_h = 4000;
  const DynamicDescriptions too_tall = describe(tall, tall);
  CHECK(build(*plugin).configurePlugin(too_tall.data(), kInputs, too_tall.data() + kInputs, 1) != 0);
  CHECK(reported("shared memory, and compute capability 8.6 (assumed, because no GPU was found) has 101376"));
  samrt_host_set_device(90, kSharedBytes);

  for (int32_t tactic : {-1, samrt_attention_tiles() + 2}) {
    CHECK(runtime(*plugin).setTactic(tactic) != 0);
    CHECK(reported("tactic " + std::to_string(tactic)));
  }
}

}  // namespace

void test_building() {
  negotiates_formats();
  infers_shapes();
  refuses_wrong_shapes();
  offers_tactics();
}
