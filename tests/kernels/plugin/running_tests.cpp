// enqueue on host memory, with the host build of the kernels.
#include <random>

#include "layer.h"
#include "samrt_kernels.h"

namespace {

using nvinfer1::TensorRTPhase;

constexpr AttentionCase kGlobal{2, 3, 19, 2, 64, 0, false};
constexpr AttentionCase kWindowed{1, 9, 8, 2, 80, 7, true};

// An attention's tensors in host memory; `out` is NaN at first.
struct AttentionData {
  explicit AttentionData(const AttentionCase& c) : c(c) {
    std::mt19937 generator(7);
    // From an eighth to one, and of either sign: the exponents of both formats, and what follows them.
    const uint16_t eighth = c.bfloat16 ? 0x3e00 : 0x3000, one = c.bfloat16 ? 0x3f80 : 0x3c00;
    const auto random = [&](size_t count) {
      std::vector<uint16_t> bits(count);
      for (uint16_t& each : bits) each = eighth + generator() % (one - eighth) + (generator() % 2 << 15);
      return bits;
    };
    const size_t tokens = size_t(c.batch) * c.grid_h * c.grid_w, width = size_t(c.heads) * c.head_dim;
    qkv = random(tokens * 3 * width);
    qkv_bias = random(3 * width);
    rel_pos_h = random(size_t(2 * c.side_h() - 1) * c.head_dim);
    rel_pos_w = random(size_t(2 * c.side_w() - 1) * c.head_dim);
    out.assign(tokens * width, 0xffff);
  }

  // What the kernels make of it when called directly, with a tile shape or, for -1, the table's.
  std::vector<uint16_t> expected(int32_t tile) const {
    std::vector<uint16_t> result(out.size());
    const samrt_attention_args args{
        qkv.data(), qkv_bias.data(), rel_pos_h.data(), rel_pos_w.data(), result.data(), c.batch, c.grid_h, c.grid_w,
        c.heads, c.head_dim, c.window, c.bfloat16 ? SAMRT_KERNELS_BF16 : SAMRT_KERNELS_FP16, tile};
    CHECK(samrt_attention(&args, nullptr) == 0);
    return result;
  }

  AttentionCase c;
  std::vector<uint16_t> qkv, qkv_bias, rel_pos_h, rel_pos_w, out;
};

// The plugin as an execution context has it: built, written into a plan, loaded, attached.
struct Attached {
  explicit Attached(const AttentionCase& c) : context(&recorder) {
    const auto built = create(graph_fields(c));
    const nvinfer1::PluginFieldCollection* fields = runtime(*built).getFieldsToSerialize();
    const auto loaded = create(Fields(fields->fields, fields->fields + fields->nbFields), TensorRTPhase::kRUNTIME);
    plugin.reset(runtime(*loaded).attachToContext(&context));
  }
  int32_t run(AttentionData& data, const Descriptions& descriptions) {
    const void* inputs[] = {data.qkv.data(), data.qkv_bias.data(), data.rel_pos_h.data(), data.rel_pos_w.data()};
    void* outputs[] = {data.out.data()};
    return runtime(*plugin).enqueue(descriptions.data(), descriptions.data() + kInputs, inputs, outputs, nullptr,
                                    nullptr);
  }
  ErrorRecorder recorder;
  ResourceContext context;
  std::unique_ptr<nvinfer1::IPluginV3> plugin;
};

void computes_attention(const AttentionCase& c) {
  Attached attached(c);
  const Descriptions descriptions = describe(c);
  for (int32_t tactic = 0; tactic <= samrt_attention_tiles() + 1; ++tactic) {
    const int format = c.bfloat16 ? SAMRT_KERNELS_BF16 : SAMRT_KERNELS_FP16;
    if (tactic > 1 && !samrt_attention_has_tile(format, c.head_dim, tactic - 2, 1)) continue;
    AttentionData data(c);
    CHECK(runtime(*attached.plugin).setTactic(tactic) == 0);
    CHECK(runtime(*attached.plugin).onShapeChange(descriptions.data(), kInputs, descriptions.data() + kInputs, 1) == 0);
    CHECK(attached.run(data, descriptions) == 0);
    CHECK(data.out == data.expected(tactic > 1 ? tactic - 2 : -1));
  }
  CHECK(attached.recorder.getNbErrors() == 0);
}

// On a device with hardly any shared memory the kernels refuse, and say which tile shape they were to run.
void runs_the_tactic() {
  Attached attached(kGlobal);
  AttentionData data(kGlobal);
  samrt_host_set_device(90, 1024);
  for (int32_t tile = 0; tile < samrt_attention_tiles(); ++tile) {
    CHECK(runtime(*attached.plugin).setTactic(tile + 2) == 0);
    CHECK(attached.run(data, describe(kGlobal)) != 0);
    CHECK(reported(std::string("with tile ") + samrt_attention_tile_name(tile) + ","));
  }
  // The default shape, after one of the others.
  CHECK(runtime(*attached.plugin).setTactic(1) == 0);
  CHECK(attached.run(data, describe(kGlobal)) != 0);
  CHECK(reported("take a smaller image"));
  samrt_host_set_device(0, 0);
  CHECK(attached.run(data, describe(kGlobal)) != 0);
  CHECK(reported("no NVIDIA driver"));
  samrt_host_set_device(90, kSharedBytes);
}

void takes_an_empty_batch() {
  AttentionCase c = kWindowed;
  c.batch = 0;
  AttentionData data(c);
  CHECK(Attached(c).run(data, describe(c)) == 0);
}

void refuses_to_run() {
  Attached attached(kGlobal);
  AttentionData data(kGlobal);
  Descriptions other = describe(kGlobal);
  other[0].dims.d[2] = 20;
  CHECK(attached.run(data, other) != 0);
  CHECK(reported("rel_pos_w is [37, 64]; its dimension 0 has to be 39"));
  CHECK(attached.recorder.getNbErrors() == 1);
  CHECK(std::string(attached.recorder.getErrorDesc(0)).find("rel_pos_w") == 0);
  CHECK(data.out == AttentionData(kGlobal).out);

  // Attached to another context, it reports to that one's recorder.
  ErrorRecorder second;
  ResourceContext context(&second);
  const std::unique_ptr<nvinfer1::IPluginV3> reattached(runtime(*attached.plugin).attachToContext(&context));
  CHECK(runtime(*reattached).setTactic(99) != 0);
  CHECK(second.getNbErrors() == 1 && attached.recorder.getNbErrors() == 1);
  CHECK(reported("tactic 99"));

  // A recorder that the context got later takes the place of the one before.
  ErrorRecorder third;
  context.set_recorder(&third);
  CHECK(runtime(*reattached).setTactic(99) != 0);
  CHECK(third.getNbErrors() == 1 && second.getNbErrors() == 1);

  // What the kernels refuse arrives with their reason.
  const Descriptions descriptions = describe(kGlobal);
  const void* inputs[] = {data.qkv.data() + 1, data.qkv_bias.data(), data.rel_pos_h.data(), data.rel_pos_w.data()};
  void* outputs[] = {data.out.data()};
  CHECK(runtime(*attached.plugin).enqueue(descriptions.data(), descriptions.data() + kInputs, inputs, outputs, nullptr,
                                          nullptr) != 0);
  CHECK(reported("not aligned to 16 bytes"));
}

}  // namespace

void test_running() {
  computes_attention(kGlobal);
  computes_attention(kWindowed);
  runs_the_tactic();
  takes_an_empty_batch();
  refuses_to_run();
}
