// Drives the TensorRT plugin through its own interface, without TensorRT: its creator, what a builder asks of it, and
// enqueue with the host build of the kernels. Compiles with TensorRT's headers, or with stand_in/ where there are none.
#include "layer.h"

int main() {
  LoggerFinder finder(logger);
  for (void (*test)() : {test_creator, test_building, test_running}) {
    setLoggerFinder(&finder);
    test();
    const std::string left = logger.take();
    if (!left.empty()) {
      std::printf("logged and not expected: %s\n", left.c_str());
      ++failures;
    }
  }
  setLoggerFinder(nullptr);
  std::printf(failures ? "%d checks failed\n" : "all checks passed\n", failures);
  return failures ? 1 : 0;
}
