/* The inner loops of convolution, transposed convolution and linear layers.
 *
 * All arithmetic is one matrix product in disguise, `pixels x channels`, cut into register tiles of CNN_CONV_ROWS
 * rows and one panel of output channels: two vectors wide, or one where the last panel has no more channels than
 * that. Rows are found through pointers, one per pixel and kernel tap ("indirection": Dukhan, "The Indirect
 * Convolution Algorithm", 2019, arXiv:1907.02129), so that strides, dilations and padding cost nothing here. */
#ifndef CNN_UKERNELS_CONV_H
#define CNN_UKERNELS_CONV_H

#include <stdbool.h>
#include <stdint.h>

#define CNN_CONV_ROWS 6 /* 6 x 2 accumulators, 2 weights, 1 broadcast: 15 of 16 registers */

/* What happens to the sums on their way to dst; all of it may be absent. */
typedef struct cnn_conv_epilogue {
    const float *bias;          /* [channels of dst], or NULL */
    const float *const *addend; /* [pixels of the block], each as wide as dst's, or NULL */
    bool clamps;                /* to low .. high; NaN stays NaN */
    float low, high;
} cnn_conv_epilogue;

/* The pixels that one call works on. */
typedef struct cnn_conv_block {
    int64_t pixels, taps, ic;
    const float *const *src; /* [taps][pixels] */
    int64_t channel;         /* a tap's ic floats begin so many floats from there */
    const int64_t *offset;   /* [ic], and lie at these from then on; NULL: one behind the other */
    float *const *dst;       /* [pixels] */
    const char *later;       /* what is to be brought near for the block after this one: ic floats for a pixel; NULL: the next
                              * pixels of this one */
    const float *weights_end; /* each panel of weights is brought near while the one before computes, up to here; or NULL */
} cnn_conv_block;

#define CNN_CONV_OUTER_ROWS 12 /* of any ISA */

/* Some rows of an outer product, 1 <= height <= outer_rows. */
typedef struct cnn_conv_outer_block {
    int height;
    int64_t pixels;
    const float *const *rows; /* [pixels] */
    const int64_t *offset;    /* [height]: where they lie from there */
} cnn_conv_outer_block;

struct cnn_conv_kernels {
    /* dst[p][offset + o] = epilogue(sum over taps t and channels c of src[t][p][c] * weights[t][c][o]), o < channels.
     * weights is [panels][taps][ic][2 vectors], one vector in the last panel if that suffices, zero beyond `channels`; bias
     * and addend are read at `offset` too. Without an epilogue (NULL) dst gets the sums. */
    void (*forward)(const cnn_conv_block *block, const float *weights, const cnn_conv_epilogue *epilogue,
                    int64_t offset, int64_t channels);

    /* sums[r * stride + o] = (or, with `add`, +=) sum over pixels p of rows[p][offset[r]] * cols[p][o] for r < height and
     * o < channels, 1 <= channels <= 2 vectors. cols is [pixels][1 or 2 vectors], as `channels` needs. On the way lines
     * of cache from `fetch` on, which may be any address, are brought near: `step` bytes for each pixel. */
    void (*outer)(const cnn_conv_outer_block *block, const float *cols, int channels, bool add, int64_t stride,
                  const char *fetch, int64_t step, float *sums);

    int outer_rows; /* of its register tiles: 12 with 32 registers, else 6 */
    int outer_narrow_rows; /* where columns are but one vector: 8, else 6 */
    int outer_unit; /* tiles are a multiple of so many rows, or compute some twice */

    /* dst[o] = sum over rows r of src[r * stride + o], o < channels. */
    void (*column_sums)(int64_t rows, int64_t channels, const float *src, int64_t stride, float *dst);

    /* Weights as `forward` reads them: to[r][c] = from[r * row_stride + c * column_stride], zero in columns from `columns`
     * to `row`, the length of to's rows, which is the whole vectors that hold them. */
    void (*pack)(const float *from, int64_t rows, int64_t row_stride, int64_t columns, int64_t column_stride, int64_t row,
                 float *to);
};

#endif
