// Errors as the C interface reports them: a code, and one line for the thread that got it.
#pragma once

#include "../samrt_kernels.h"

namespace samrt {

// Keep the line that printf would make for samrt_kernels_last_error(), and return `code`.
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
int fail(int code, const char* format, ...);

}  // namespace samrt
