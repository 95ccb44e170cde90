// Fields in, plugin out: from a graph, and from a plan.
#include <cstring>

#include "layer.h"
#include "samrt_kernels.h"

namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;
using nvinfer1::TensorRTPhase;

constexpr AttentionCase kCase{1, 6, 6, 2, 64, 0, false};

void refuses(const Fields& fields, const std::string& because, TensorRTPhase phase = TensorRTPhase::kBUILD) {
  CHECK(create(fields, phase) == nullptr);
  CHECK(reported(because));
}

void describes_itself() {
  int32_t count = 0;
  CHECK(getCreators(count) != nullptr && count == 1);
  CHECK(creator().getPluginName() == std::string("SamrtRelPosAttention"));
  CHECK(creator().getPluginVersion() == std::string("1"));
  CHECK(creator().getPluginNamespace() == std::string(""));

  const nvinfer1::PluginFieldCollection* fields = creator().getFieldNames();
  CHECK(fields->nbFields == 3);
  for (const char* name : {"num_heads", "head_dim", "window_size"}) {
    bool found = false;
    for (int32_t i = 0; i < fields->nbFields; ++i) {
      const PluginField& field = fields->fields[i];
      found = found || (field.name == std::string(name) && field.type == PluginFieldType::kINT32);
    }
    CHECK(found);
  }
  const auto plugin = create(graph_fields(kCase));
  CHECK(plugin != nullptr);
  CHECK(core(*plugin).getPluginName() == std::string("SamrtRelPosAttention"));
  CHECK(core(*plugin).getPluginVersion() == std::string("1"));
  CHECK(core(*plugin).getPluginNamespace() == std::string(""));
  CHECK(plugin->getCapabilityInterface(static_cast<nvinfer1::PluginCapabilityType>(9)) == nullptr);
  CHECK(reported("capability"));
}

void refuses_bad_fields() {
  const Fields good = graph_fields(kCase);
  for (size_t i = 0; i < good.size(); ++i) {
    Fields fields = good;
    fields.erase(fields.begin() + i);
    refuses(fields, std::string("attribute ") + good[i].name + " is missing");
  }
  CHECK(creator().createPlugin("", nullptr, TensorRTPhase::kBUILD) == nullptr);
  CHECK(reported("is missing"));

  Fields fields = good;
  fields.push_back({"scale", &kCase.heads, PluginFieldType::kINT32, 1});
  refuses(fields, "unknown attribute 'scale'");
  fields.back().name = nullptr;
  refuses(fields, "unknown attribute ''");
  refuses(fields, "built with an unknown version", TensorRTPhase::kRUNTIME);
  fields.back().name = "kernels_version";  // a plan's, not a graph's
  refuses(fields, "unknown attribute 'kernels_version'");
  fields.back().name = "head_dim";
  refuses(fields, "head_dim is given twice");

  fields = good;
  fields[1].type = PluginFieldType::kFLOAT32;
  refuses(fields, "head_dim must be one 32-bit integer");
  fields = good;
  fields[2].length = 2;
  refuses(fields, "window_size must be one 32-bit integer");
  fields = good;
  fields[0].data = nullptr;
  refuses(fields, "num_heads must be one 32-bit integer");
}

void refuses_bad_values() {
  AttentionCase c = kCase;
  c.head_dim = 72;
  refuses(graph_fields(c), "not 72");
  c = kCase;
  c.heads = 0;
  refuses(graph_fields(c), "0 heads");
  c.heads = 1 << 30;
  refuses(graph_fields(c), "1073741824 heads");
  c = kCase;
  c.window = -14;
  refuses(graph_fields(c), "window -14");
}

void names_the_layer() {
  create({});
  CHECK(reported("SamrtRelPosAttention 'blocks.0.attn': "));
  const Fields fields = graph_fields(kCase);
  nvinfer1::PluginFieldCollection collection{};
  collection.nbFields = static_cast<int32_t>(fields.size());
  collection.fields = fields.data();
  const std::unique_ptr<nvinfer1::IPluginV3> unnamed(
      creator().createPlugin(nullptr, &collection, TensorRTPhase::kBUILD));
  CHECK(unnamed != nullptr);
}

// What TensorRT keeps in a plan, as it comes back from one: copies, aligned to nothing.
struct Plan {
  explicit Plan(nvinfer1::IPluginV3& plugin) {
    const nvinfer1::PluginFieldCollection* serialized = runtime(plugin).getFieldsToSerialize();
    bytes.resize(serialized->nbFields * sizeof(int32_t) + 1);
    for (int32_t i = 0; i < serialized->nbFields; ++i) {
      PluginField field = serialized->fields[i];
      CHECK(field.type == PluginFieldType::kINT32 && field.length == 1);
      char* copy = bytes.data() + 1 + i * sizeof(int32_t);
      std::memcpy(copy, field.data, sizeof(int32_t));
      field.data = copy;
      fields.push_back(field);
    }
  }
  int32_t value(const std::string& name) const {
    for (const PluginField& field : fields) {
      if (field.name != name) continue;
      int32_t value;
      std::memcpy(&value, field.data, sizeof value);
      return value;
    }
    return -1;
  }
  std::vector<char> bytes;
  Fields fields;
};

void survives_a_plan() {
  AttentionCase c = kCase;
  c.window = 14;
  const auto built = create(graph_fields(c));
  const Plan plan(*built);
  CHECK(plan.fields.size() == 4);
  const auto loaded = create(plan.fields, TensorRTPhase::kRUNTIME);
  CHECK(loaded != nullptr);
  const Plan again(*loaded);
  CHECK(again.value("num_heads") == c.heads && again.value("head_dim") == c.head_dim);
  CHECK(again.value("window_size") == 14 && again.value("kernels_version") == samrt_kernels_version());

  Plan other(*built);
  const int32_t version = samrt_kernels_version() + 1;
  other.fields.back().data = &version;
  refuses(other.fields, "built with version " + std::to_string(version), TensorRTPhase::kRUNTIME);
  other.fields.back().name = "of_a_later_version";  // the version is looked at before fields it may have brought
  refuses(other.fields, "built with an unknown version", TensorRTPhase::kRUNTIME);
  refuses(graph_fields(c), "built with an unknown version", TensorRTPhase::kRUNTIME);
}

void clones() {
  auto original = create(graph_fields(kCase));
  CHECK(runtime(*original).setTactic(1) == 0);
  const std::unique_ptr<nvinfer1::IPluginV3> clone(original->clone());
  const std::string id = build(*original).getTimingCacheID();
  original.reset();
  CHECK(build(*clone).getTimingCacheID() == id);
  const Plan plan(*clone);  // of its own fields, not of the deleted original's
  CHECK(plan.value("num_heads") == kCase.heads && plan.value("head_dim") == kCase.head_dim);
}

void distinguishes_timings() {
  std::vector<std::string> ids;
  for (const AttentionCase& c : {AttentionCase{1, 6, 6, 2, 64, 0, false}, AttentionCase{1, 6, 6, 2, 64, 14, false},
                                 AttentionCase{1, 6, 6, 2, 80, 0, false}, AttentionCase{1, 6, 6, 3, 64, 0, false}}) {
    const auto plugin = create(graph_fields(c));
    const auto twin = create(graph_fields(c));
    CHECK(build(*plugin).getTimingCacheID() == std::string(build(*twin).getTimingCacheID()));
    for (const std::string& other : ids) CHECK(build(*plugin).getTimingCacheID() != other);
    ids.push_back(build(*plugin).getTimingCacheID());
    CHECK(build(*plugin).getMetadataString() == ids.back());
  }
}

void reports_without_a_handler() {
  std::printf("a message on stderr:\n");
  std::fflush(stdout);
  samrt_plugin_on_error(nullptr);
  CHECK(create({}) == nullptr);
  CHECK(take_errors().empty());
}

}  // namespace

void test_creator() {
  describes_itself();
  refuses_bad_fields();
  refuses_bad_values();
  names_the_layer();
  survives_a_plan();
  clones();
  distinguishes_timings();
  reports_without_a_handler();
}
