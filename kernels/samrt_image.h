/* Images to model input, and low-resolution logits to masks, on the GPU. Conventions, versions and error codes are
 * those of samrt_kernels.h: device pointers, work enqueued on `stream`, no waiting, no memory allocated or kept.
 *
 * Frames, as everywhere in samrt: the *original* image, height x width; the *input*, the image resized so that its
 * longer side is S, which the model sees padded with zeros right and below to S x S; *low-res* logits L x L, which
 * cover the padded square.
 */
#ifndef SAMRT_IMAGE_H
#define SAMRT_IMAGE_H

#include "samrt_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A number format in addition to the two of samrt_kernels.h. */
enum { SAMRT_KERNELS_FP32 = 2 };

/* Limits: a side of the original image, S, and masks in one call. An original that masks are made for has fewer than
 * 2^31 pixels. */
enum { SAMRT_IMAGE_MAX_SIDE = 65536, SAMRT_IMAGE_MAX_INPUT = 16384, SAMRT_IMAGE_MAX_MASKS = 65535 };

/* Pixel formats */
enum {
  SAMRT_IMAGE_RGB = 0, /* uint8 [height, width, 3] */
  SAMRT_IMAGE_BGR = 1,
  /* NV12: luma uint8 [height, width], chroma uint8 [height / 2, width / 2, 2] (Cb, Cr), each pair for 2 x 2 pixels;
   * both sides even. "Limited" range: luma 16 to 235, chroma 16 to 240. With Y' = max(Y - 16, 0), U = Cb - 128 and
   * V = Cr - 128, in integers, results shifted right by 20 bits and clipped to 0..255:
   *   BT.601, bit by bit OpenCV's COLOR_YUV2RGB_NV12:        BT.709, 255/219 and 255/224 rounded to 2^-20:
   *     R = 1220542 Y' + 1673527 V + 2^19                      R = 1220945 Y' + 1879825 V + 2^19
   *     G = 1220542 Y' - 409993 U - 852492 V + 2^19            G = 1220945 Y' - 223607 U - 558796 V + 2^19
   *     B = 1220542 Y' + 2116026 U + 2^19                      B = 1220945 Y' + 2215014 U + 2^19 */
  SAMRT_IMAGE_NV12_BT601 = 2,
  SAMRT_IMAGE_NV12_BT709 = 3
};

enum {
  SAMRT_NORMALIZE_MEAN_STD = 0, /* (value - mean) / std per channel, on values 0..255 */
  SAMRT_NORMALIZE_MIN_MAX = 1   /* (value - low) / max(high - low, 1e-8); low and high of the whole resized image */
};

/* One image to model input: resized, normalised, padded.
 *
 * The filter is that of Pillow's `Image.resize(size, BILINEAR)`, antialiased, rounded to 8 bits after each of its two
 * passes; the resized values are equal to Pillow's bit for bit, larger and smaller. Normalisation is in IEEE float32
 * (as `samrt.geometry.normalize_and_pad`), rounded to nearest even for fp16.
 *
 * Which pass comes first changes some values by one. Pillow up to 12.1 always does the horizontal pass first. For tall
 * images that become smaller, the vertical pass comes first in 12.2 and 12.3 where height > input_height and height > 100 * width; in 13
 * where height - input_height > 0 and > 2 * (width - input_width). `vertical_first` selects
 * this order. That path is correct, but was not made for speed.
 */
typedef struct samrt_preprocess_args {
  const void* image;      /* its first row; NV12: the luma. Rows of 4-byte alignment are read fastest */
  const void* chroma;     /* NV12 only */
  int64_t image_pitch;    /* bytes from a row to the next, at least the row's own; not negative */
  int64_t chroma_pitch;   /* NV12 only */
  void* out;              /* [3, image_size, image_size], planes R, G, B */
  void* workspace;        /* samrt_preprocess_workspace, aligned to 16 bytes */
  int32_t pixels;         /* SAMRT_IMAGE_* */
  int32_t height, width;  /* of the original */
  int32_t input_height, input_width; /* of the input, at most image_size; samrt_input_size computes Meta's */
  int32_t image_size;     /* S */
  int32_t format;         /* of `out`: SAMRT_KERNELS_FP32 or SAMRT_KERNELS_FP16 */
  int32_t normalization;  /* SAMRT_NORMALIZE_* */
  int32_t vertical_first; /* 0 or 1; see above */
  float mean[3], std[3];  /* R, G, B; for SAMRT_NORMALIZE_MEAN_STD */
} samrt_preprocess_args;

/* The input's size as Meta's ResizeLongestSide rounds it, no side below 1 (`samrt.geometry.resize_shape`). */
SAMRT_KERNELS_API int samrt_input_size(int32_t height, int32_t width, int32_t image_size, int32_t* input_height,
                                       int32_t* input_width);

/* Bytes of workspace. They depend only on the sizes. */
SAMRT_KERNELS_API int samrt_preprocess_workspace(const samrt_preprocess_args* args, size_t* bytes);

/* Fill the workspace with the filter's weights. The weights depend only on height, width, input_height and
 * input_width, and stay valid: call it once per camera. `image`, `chroma` and `out` are not read. */
SAMRT_KERNELS_API int samrt_preprocess_prepare(const samrt_preprocess_args* args, samrt_stream stream);

/* One kernel, which reads the image once; with SAMRT_NORMALIZE_MIN_MAX a second one over `out`. The workspace must
 * have been prepared for these sizes; calls that share one must not overlap in time. */
SAMRT_KERNELS_API int samrt_preprocess(const samrt_preprocess_args* args, samrt_stream stream);

/* The least number of bytes to move: read the image once, write the model input once. */
SAMRT_KERNELS_API int samrt_preprocess_floor(const samrt_preprocess_args* args, int64_t* bytes);

/* Statistics of one mask, all at the size of the original */
typedef struct samrt_mask_stats {
  uint32_t area;       /* pixels with logit > threshold */
  uint32_t above_high; /* pixels with logit > threshold + stability_offset */
  uint32_t above_low;  /* pixels with logit > threshold - stability_offset; Meta's stability score is above_high / above_low */
  int32_t x0, y0, x1, y1; /* box of the mask, corners inclusive, as Meta's batched_mask_to_box; zeros if empty */
  uint32_t runs;       /* COCO runs that the mask has, whether or not they were written */
} samrt_mask_stats;

/* Low-res logits to masks at the size of the original.
 *
 * Both bilinear steps of Meta's `Sam.postprocess_masks` (L to S, padding cut off, input to original; pixel centres at
 * one half, no antialiasing) are one weighted sum of 3 x 3 logits per pixel, with positions computed in integers and
 * sums in float32. No float array has the original's size. Between the two kernels, the workspace holds one bit per
 * pixel. The mask, its area, box and runs, and above_high and above_low, all come from the logits of
 * the original's pixels, as in Meta's automatic mask generator; none is estimated at low resolution.
 * If a NaN contributes to a pixel, the pixel is not part of the mask.
 */
typedef struct samrt_masks_args {
  const void* logits;        /* [masks, low_res_size, low_res_size] */
  uint8_t* out;              /* [masks, height, width], 1 where logit > threshold, else 0; or NULL */
  samrt_mask_stats* stats;   /* [masks]; or NULL */
  uint32_t* runs;            /* [masks, run_capacity], COCO: lengths of runs down the columns, column after column,
                                alternating 0 and 1, 0 first (its length may be 0). Or NULL. Needs `stats`: a mask
                                whose stats.runs exceeds run_capacity has its first run_capacity runs here. */
  void* workspace;           /* samrt_masks_workspace, aligned to 16 bytes; calls that share one must not overlap in
                                time */
  int32_t masks;             /* 0: the call does nothing */
  int32_t low_res_size;      /* L, at most S */
  int32_t image_size;        /* S */
  int32_t input_height, input_width; /* the part of S x S that is not padding */
  int32_t height, width;     /* of the original */
  int32_t format;            /* of `logits`: SAMRT_KERNELS_FP32 or SAMRT_KERNELS_FP16 */
  int32_t run_capacity;
  float threshold;
  float stability_offset;    /* not negative */
} samrt_masks_args;

/* Bytes of workspace. They depend only on the sizes. */
SAMRT_KERNELS_API int samrt_masks_workspace(const samrt_masks_args* args, size_t* bytes);

/* Launches two kernels, or one if stats and runs are NULL. */
SAMRT_KERNELS_API int samrt_masks(const samrt_masks_args* args, samrt_stream stream);

/* The least number of bytes to move: read the logits once, write `out` and `stats` once if they are not NULL. Runs are
 * not counted, because their number depends on the masks. */
SAMRT_KERNELS_API int samrt_masks_floor(const samrt_masks_args* args, int64_t* bytes);

#ifdef __cplusplus
}
#endif

#endif
