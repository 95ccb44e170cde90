// Drives the TensorRT plugin through its own interface, without TensorRT: its creator, what a builder asks of it, and
// enqueue with the host build of the kernels.
#include "layer.h"

int main() {
  for (void (*test)() : {test_creator, test_building, test_running}) {
    samrt_plugin_on_error(keep_error);
    test();
    const std::string left = take_errors();
    if (!left.empty()) {
      std::printf("an error that was not expected: %s\n", left.c_str());
      ++failures;
    }
  }
  std::printf(failures ? "%d checks failed\n" : "all checks passed\n", failures);
  return failures ? 1 : 0;
}
