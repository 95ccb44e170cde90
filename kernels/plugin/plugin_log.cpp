#include "plugin_log.h"

#include <atomic>
#include <cstdio>

#include "samrt_plugin.h"

namespace samrt {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

nvinfer1::ILogger* find_logger() noexcept {
  nvinfer1::ILoggerFinder* finder = logger_finder;
  try {
    return finder ? finder->findLogger() : nullptr;
  } catch (...) {
    return nullptr;
  }
}

}  // namespace

void report_error(const char* where, const char* what, nvinfer1::IErrorRecorder* recorder) noexcept {
  char message[1024];
  std::snprintf(message, sizeof message, "%s '%s': %s", kPluginName, where, what);
  if (nvinfer1::ILogger* logger = find_logger()) {
    logger->log(nvinfer1::ILogger::Severity::kERROR, message);
  } else {
    std::fprintf(stderr, "%s\n", message);
  }
  if (recorder) recorder->reportError(nvinfer1::ErrorCode::kINVALID_ARGUMENT, what);
}

}  // namespace samrt

extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { samrt::logger_finder = finder; }
