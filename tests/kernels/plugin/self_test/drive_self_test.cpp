// Sees samrt_attention_self_test pass with the kernels as they are, and fail with each of several faults. The linker
// puts __wrap_samrt_attention between the self test and the kernels (--wrap); it makes the fault out of a right result
// or out of right arguments; "device" memory is host memory here.
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "elements.hpp"
#include "samrt_self_test.h"

extern "C" int __real_samrt_attention(const samrt_attention_args* args, samrt_stream stream);

namespace {

using Bits = std::vector<uint16_t>;

size_t width(const samrt_attention_args& args) { return size_t(args.heads) * args.head_dim; }
size_t tokens(const samrt_attention_args& args) { return size_t(args.batch) * args.grid_h * args.grid_w; }
uint16_t* out(const samrt_attention_args& args) { return static_cast<uint16_t*>(args.out); }

int run(const samrt_attention_args& args) { return __real_samrt_attention(&args, nullptr); }

int right(samrt_attention_args args) { return run(args); }

int drops_an_image(samrt_attention_args args) {
  args.batch = 1;
  return run(args);
}

int drops_the_last_token(samrt_attention_args args) {
  const int code = run(args);
  std::memset(out(args) + (tokens(args) - 1) * width(args), 0xff, 2 * width(args));
  return code;
}

// By a hundredth of the largest value, in one number format, with one tile shape.
int shifts_one_element(samrt_attention_args args) {
  const int code = run(args);
  if (args.format == SAMRT_KERNELS_FP16 && args.tile == samrt_attention_tiles() - 1) {
    uint16_t& element = out(args)[tokens(args) * width(args) / 2];
    element = samrt::host::half_bits(samrt::host::half_value(element) + 0.02f);
  }
  return code;
}

int shifts_one_element_of_bf16(samrt_attention_args args) {
  const int code = run(args);
  if (args.format == SAMRT_KERNELS_BF16) {
    uint16_t& element = out(args)[tokens(args) * width(args) / 2];
    element = samrt::host::bfloat16_bits(samrt::host::bfloat16_value(element) + 0.08f);
  }
  return code;
}

int swaps_heads(samrt_attention_args args) {
  const int code = run(args);
  for (size_t token = 0; token < tokens(args); ++token) {
    uint16_t* first = out(args) + token * width(args);
    for (int i = 0; i < args.head_dim; ++i) std::swap(first[i], first[args.head_dim + i]);
  }
  return code;
}

int swaps_tables(samrt_attention_args args) {
  if (args.window) std::swap(args.rel_pos_h, args.rel_pos_w);  // elsewhere they differ in size
  return run(args);
}

int drops_row_terms(samrt_attention_args args) {
  const int side = args.window ? args.window : args.grid_h;
  const Bits zeros(size_t(2 * side - 1) * args.head_dim);
  args.rel_pos_h = zeros.data();
  return run(args);
}

int drops_column_terms(samrt_attention_args args) {
  const int side = args.window ? args.window : args.grid_w;
  const Bits zeros(size_t(2 * side - 1) * args.head_dim);
  args.rel_pos_w = zeros.data();
  return run(args);
}

int pads_with_zeros(samrt_attention_args args) {
  const Bits zeros(3 * width(args));
  args.qkv_bias = zeros.data();
  return run(args);
}

int scales_keys(samrt_attention_args args) {
  const auto* given = static_cast<const uint16_t*>(args.qkv);
  Bits qkv(given, given + tokens(args) * 3 * width(args));
  for (size_t i = 0; i < qkv.size(); ++i) {
    if (i / width(args) % 3 != 1) continue;
    qkv[i] = args.format == SAMRT_KERNELS_FP16
                 ? samrt::host::half_bits(1.02f * samrt::host::half_value(qkv[i]))
                 : samrt::host::bfloat16_bits(1.1f * samrt::host::bfloat16_value(qkv[i]));
  }
  args.qkv = qkv.data();
  return run(args);
}

int fails(samrt_attention_args) { return SAMRT_KERNELS_CUDA; }

int (*kernel)(samrt_attention_args) = right;

struct Fault {
  const char* name;
  int (*kernel)(samrt_attention_args);
  int code;
};

constexpr Fault kFaults[] = {
    {"none", right, SAMRT_KERNELS_OK},
    {"drops_an_image", drops_an_image, SAMRT_KERNELS_WRONG},
    {"drops_the_last_token", drops_the_last_token, SAMRT_KERNELS_WRONG},
    {"shifts_one_element", shifts_one_element, SAMRT_KERNELS_WRONG},
    {"shifts_one_element_of_bf16", shifts_one_element_of_bf16, SAMRT_KERNELS_WRONG},
    {"swaps_heads", swaps_heads, SAMRT_KERNELS_WRONG},
    {"swaps_tables", swaps_tables, SAMRT_KERNELS_WRONG},
    {"drops_row_terms", drops_row_terms, SAMRT_KERNELS_WRONG},
    {"drops_column_terms", drops_column_terms, SAMRT_KERNELS_WRONG},
    {"pads_with_zeros", pads_with_zeros, SAMRT_KERNELS_WRONG},
    {"scales_keys", scales_keys, SAMRT_KERNELS_WRONG},
    {"fails", fails, SAMRT_KERNELS_CUDA},
};

}  // namespace

extern "C" int __wrap_samrt_attention(const samrt_attention_args* args, samrt_stream) { return kernel(*args); }

int main() {
  int failures = 0;
  for (const Fault& fault : kFaults) {
    kernel = fault.kernel;
    const int code = samrt_attention_self_test(nullptr);
    const bool good = code == fault.code &&
                      (code != SAMRT_KERNELS_WRONG || std::strstr(samrt_kernels_last_error(), "attention self test: "));
    std::printf("%s: %d%s%s%s\n", fault.name, code, code ? " " : "", code ? samrt_kernels_last_error() : "",
                good ? "" : "  <- not as it should be");
    failures += !good;
  }
  std::printf(failures ? "%d faults not seen as they should be\n" : "all as it should be\n", failures);
  return failures ? 1 : 0;
}
