// Where the plugin's errors go.
#pragma once

#include <NvInferRuntime.h>

#include <exception>

namespace samrt {

// Log an error with TensorRT's logger, or on stderr where TensorRT has not given one. `where` names the layer.
// `recorder` may be NULL; it keeps the first 127 characters of an error.
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
