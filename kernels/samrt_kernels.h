/* C interface of the kernels, for C, C++, Python (ctypes) and every language that can call C. libsamrt_kernels.so
 * exports these functions.
 *
 * Pointers are device memory unless stated otherwise. All work is enqueued on `stream`; no function waits for it. No
 * function allocates or keeps device memory. A function returns 0, or one of SAMRT_KERNELS_*; then
 * samrt_kernels_last_error() has the reason. All functions may be called from several threads. They use the current
 * device. A call can be captured into a CUDA graph after the same call was made once outside of a capture, because
 * CUDA loads a kernel at its first use.
 */
#ifndef SAMRT_KERNELS_H
#define SAMRT_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SAMRT_KERNELS_API __attribute__((visibility("default")))
#else
#define SAMRT_KERNELS_API
#endif

/* Increased with every change of a signature, of a struct, of what a function computes, of the order of the tile shapes,
 * or of the order of the plugin's tactics. */
#define SAMRT_KERNELS_VERSION 2

enum {
  SAMRT_KERNELS_OK = 0,
  SAMRT_KERNELS_INVALID = 1,     /* an argument is out of range; the caller must correct it */
  SAMRT_KERNELS_UNSUPPORTED = 2, /* this device or this library does not support it */
  SAMRT_KERNELS_CUDA = 3         /* CUDA reported an error */
};

/* Number formats of 16-bit tensors */
enum { SAMRT_KERNELS_FP16 = 0, SAMRT_KERNELS_BF16 = 1 };

/* cudaStream_t, without CUDA's headers. */
typedef void* samrt_stream;

SAMRT_KERNELS_API int samrt_kernels_version(void);

/* The reason of the last failure in this thread, one line; "" before the first failure. Valid until the next call. */
SAMRT_KERNELS_API const char* samrt_kernels_last_error(void);

/* The architectures that were compiled, for example "80;86;87;89;90;100;110;120;120-ptx"; the last one is PTX. The
 * tests' build for the CPU returns "host". */
SAMRT_KERNELS_API const char* samrt_kernels_architectures(void);

/* Multi-head attention with decomposed relative position, over the whole grid or in windows.
 *
 * Source: Segment Anything (arXiv:2304.02643), reference `Attention`, `add_decomposed_rel_pos`, `window_partition`.
 *
 *   scores[q, k] = head_dim^-0.5 * q.k + q.rel_pos_h[qh - kh + side_h - 1] + q.rel_pos_w[qw - kw + side_w - 1]
 *   out[q] = softmax(scores[q]) . v
 *
 * Accumulates in float32. Every tensor is contiguous, of one number format, and aligned to 16 bytes.
 */
typedef struct samrt_attention_args {
  const void* qkv;       /* [batch, grid_h * grid_w, 3, heads, head_dim], bias included */
  const void* qkv_bias;  /* [3, heads, head_dim]: q, k and v of the tokens that pad the last windows; may be NULL
                            if window is 0 or divides both sides of the grid */
  const void* rel_pos_h; /* [2 * side_h - 1, head_dim]; side_h is the window, or grid_h. NULL together with rel_pos_w: no
                            bias. That is compiled for measurements only: fp16, grids more than 32 wide */
  const void* rel_pos_w; /* [2 * side_w - 1, head_dim] */
  void* out;             /* [batch, grid_h * grid_w, heads * head_dim] */
  int32_t batch;         /* 0: the call does nothing */
  int32_t grid_h;
  int32_t grid_w;
  int32_t heads;
  int32_t head_dim; /* 64 or 80 */
  int32_t window;   /* side of a window in tokens; 0: the whole grid */
  int32_t format;   /* SAMRT_KERNELS_FP16 or SAMRT_KERNELS_BF16 */
  int32_t tile;     /* index of a tile shape, for tests and tuning; -1: the default shape for this device */
} samrt_attention_args;

SAMRT_KERNELS_API int samrt_attention(const samrt_attention_args* args, samrt_stream stream);

/* Returns what samrt_attention would return for these sizes, this format and this tile, with bias, on the current device.
 * If CUDA finds no device: on every device that the kernels are compiled for. Reads no pointer and launches nothing. */
SAMRT_KERNELS_API int samrt_attention_check(const samrt_attention_args* args);

/* How many tile shapes there are, and the name of one; NULL past the last. */
SAMRT_KERNELS_API int32_t samrt_attention_tiles(void);
SAMRT_KERNELS_API const char* samrt_attention_tile_name(int32_t tile);

/* 1 if this library has a kernel of this tile shape, else 0. */
SAMRT_KERNELS_API int32_t samrt_attention_has_tile(int32_t format, int32_t head_dim, int32_t tile, int32_t with_bias);

/* Dynamic shared memory per block in bytes, for an attention over `rows` rows of tokens; 0 if the tile is unknown or a
 * size is less than 1. */
SAMRT_KERNELS_API size_t samrt_attention_shared_bytes(int32_t head_dim, int32_t tile, int32_t rows);

#ifdef __cplusplus
}
#endif

#endif
