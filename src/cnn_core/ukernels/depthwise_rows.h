/* The inner loops of depthwise convolution with kernels 3 or 5 columns wide, vectorised over channels. They roll along
 * rows: a column of src is loaded once, and multiplied into the sums of all the columns of dst that see it.
 *
 * Weights and sums lie [vector of channels][row of the kernel][column of the kernel][lane]. A call works on the channels
 * from `first` on, at least a vector of them; its last vector is the last channels' own, though it shares some with the
 * one before it: nothing needs a mask, and both compute the same. Images are channels-last; `pitch` floats lie between
 * pixels. */
#ifndef CNN_UKERNELS_DEPTHWISE_ROWS_H
#define CNN_UKERNELS_DEPTHWISE_ROWS_H

#include <stdbool.h>
#include <stdint.h>

/* A row of dst, and the rows of src inside the image that it is a sum over, at most as many as the kernel has columns:
 * row t begins at src + t * src_step and has the weights of row t from `weights` on. */
typedef struct cnn_depthwise_row {
    float *dst;
    const float *addend; /* or NULL */
    int64_t taps, src_step;
    const float *src, *weights; /* NULL where there are no taps */
} cnn_depthwise_row;

typedef struct cnn_depthwise_band {
    int64_t rows;
    const cnn_depthwise_row *row;
    int64_t src_w, dst_w, left; /* columns; those of padding */
    int64_t pitch, first, channels;
    int64_t weights_stride; /* from vector to vector */
    int64_t ahead;          /* pixels by which rows are fetched ahead */
    const float *bias;      /* or NULL */
    bool clamps;            /* to low .. high; NaN stays NaN */
    float low, high;
} cnn_depthwise_band;

/* dst = clamp(bias + sum over rows and columns of src * weights + addend). */
typedef void cnn_depthwise_rows_fn(const cnn_depthwise_band *band);

/* A row of the kernel: rows begin .. end - 1 of diff_dst see row i * row_step + offset of src by it. */
typedef struct cnn_depthwise_tap {
    int64_t k; /* which one */
    int64_t offset, begin, end;
} cnn_depthwise_tap;

typedef struct cnn_depthwise_image {
    const float *src, *diff_dst;
    int64_t src_w, dst_w, left;
    int64_t row_step;
    int64_t begin, end; /* the rows of diff_dst that count */
    int64_t taps;
    const cnn_depthwise_tap *tap; /* by rising offset */
    int64_t pitch, first, channels;
    int64_t sums_stride; /* from vector to vector */
    int64_t ahead;       /* as above, of diff_dst */
} cnn_depthwise_image;

/* sums += the sum over rows and columns of src * diff_dst. */
typedef void cnn_depthwise_sums_fn(const cnn_depthwise_image *image, float *sums);

/* Indexed by [the kernel has 5 columns, not 3][the step of columns is 2, not 1]. */
struct cnn_depthwise_rows_kernels {
    /* Column j of dst sees the columns j * step + s - left of src by column s of the kernel. */
    cnn_depthwise_rows_fn *forward[2][2];
    /* The transpose of step 2: column j of src is seen by the columns 2 * j + s - left of dst. */
    cnn_depthwise_rows_fn *spread[2];
    cnn_depthwise_sums_fn *backward_weights[2][2];
};

#endif
