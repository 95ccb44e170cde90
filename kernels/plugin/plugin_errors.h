// Where the plugin's errors go.
#pragma once

#include <exception>

#include "tensorrt_interface.h"

namespace samrt {

// Hand an error to the handler that samrt_plugin_on_error was given, or print it on stderr where there is none. `where`
// names the layer. `recorder` may be NULL; it keeps the first 127 characters of an error.
//
// Not to TensorRT's logger: its functions have other places in TensorRT 10 than in 11, and one library serves both.
void report_error(const char* where, const char* what, nvinfer1::IErrorRecorder* recorder) noexcept;

// What `body` returns; or `failure`, with a report, where it throws. TensorRT calls nothing that may throw.
template <typename Result, typename Body>
Result guarded(const char* where, nvinfer1::IErrorRecorder* recorder, Result failure, Body body) noexcept {
  try {
    return body();
  } catch (const std::exception& error) {
    report_error(where, error.what(), recorder);
  } catch (...) {
    report_error(where, "unknown error", recorder);
  }
  return failure;
}

}  // namespace samrt
