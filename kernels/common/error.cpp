#include "error.h"

#include <cstdarg>
#include <cstdio>

namespace samrt {
namespace {

thread_local char last_error[512] = "";

}  // namespace

int fail(int code, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(last_error, sizeof last_error, format, arguments);
  va_end(arguments);
  return code;
}

}  // namespace samrt

extern "C" const char* samrt_kernels_last_error(void) { return samrt::last_error; }

extern "C" int samrt_kernels_version(void) { return SAMRT_KERNELS_VERSION; }
