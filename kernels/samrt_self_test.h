/* A check of the kernels on the device at hand, before anything is built on them. */
#ifndef SAMRT_SELF_TEST_H
#define SAMRT_SELF_TEST_H

#include "samrt_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the self test returns, beside the codes of samrt_kernels.h: the kernels ran, and a result is wrong. */
enum { SAMRT_KERNELS_WRONG = 4 };

/* Runs every tile shape that is compiled with bias in both number formats and head dimensions, over a whole grid and in windows with padding, at
 * small sizes, and compares with the same computed in float64 on the host. Takes a few hundred KB of device memory,
 * which it frees, and waits for `stream`. 0, or a code with the case and its error in samrt_kernels_last_error().
 */
SAMRT_KERNELS_API int samrt_attention_self_test(samrt_stream stream);

#ifdef __cplusplus
}
#endif

#endif
