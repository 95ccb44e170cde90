#include "plugin_errors.h"

#include <atomic>
#include <cstdio>

#include "samrt_plugin.h"

namespace samrt {
namespace {

std::atomic<samrt_plugin_error_handler> error_handler{nullptr};

}  // namespace

void report_error(const char* where, const char* what, nvinfer1::IErrorRecorder* recorder) noexcept {
  char message[1024];
  std::snprintf(message, sizeof message, "%s '%s': %s", kPluginName, where, what);
  if (const samrt_plugin_error_handler handler = error_handler) {
    handler(message);
  } else {
    std::fprintf(stderr, "%s\n", message);
  }
  if (recorder) recorder->reportError(nvinfer1::ErrorCode::kINVALID_ARGUMENT, what);
}

}  // namespace samrt

extern "C" void samrt_plugin_on_error(samrt_plugin_error_handler handler) { samrt::error_handler = handler; }

// TensorRT takes no library without it.
extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder*) {}
