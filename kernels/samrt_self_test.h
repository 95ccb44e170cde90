/* A check of the kernels on the current device, to run before an engine is built with them. */
#ifndef SAMRT_SELF_TEST_H
#define SAMRT_SELF_TEST_H

#include "samrt_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Return code in addition to those of samrt_kernels.h: the kernels ran, and a result is wrong. */
enum { SAMRT_KERNELS_WRONG = 4 };

/* Runs every tile shape that is compiled with bias, in both number formats and both head dimensions, over a whole grid and
 * in windows with padding, at small sizes. Compares the results with float64 on the host. Allocates a few hundred KB of
 * device memory and frees them. Waits for `stream`. Returns 0, or a code; then samrt_kernels_last_error() has the case
 * and its error.
 */
SAMRT_KERNELS_API int samrt_attention_self_test(samrt_stream stream);

#ifdef __cplusplus
}
#endif

#endif
