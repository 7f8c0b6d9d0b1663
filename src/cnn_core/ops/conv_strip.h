/* Strips: the rows of x that some lines of y read, copied with their padding.
 *
 * With few channels, finding each tap of each pixel by itself takes longer than the products do. In a strip every
 * window lies whole, and number k of it, counted over kernel rows, columns and channels, lies at the same offset from
 * its first: one pointer per pixel and one list of offsets say where everything is. The copy costs
 * 2 stride² / (kh kw oc) of the arithmetic, whatever the number of input channels. */
#ifndef CNN_OPS_CONV_STRIP_H
#define CNN_OPS_CONV_STRIP_H

#include "ops/conv_geometry.h"

/* How the lines of y, of all images one behind the other, are cut into strips. */
typedef struct cnn_conv_strips {
    int64_t lines, count;
    int64_t row;           /* floats of a padded row of x, all channels */
    int64_t most_pixels;   /* of y, in one strip */
    size_t bytes;          /* of one strip */
} cnn_conv_strips;

/* Whether strips are worth it. */
bool cnn_conv_strips_suit(const cnn_conv *conv);
/* In strips of about `pixels` pixels. */
cnn_conv_strips cnn_conv_strips_of(const cnn_conv *conv, int64_t pixels);

/* offset[(r * col_taps + s) * channels + c] = where channel c of the grid's tap (r, s) lies from its window's start. */
void cnn_conv_strip_offsets(const cnn_conv *conv, const cnn_conv_strips *strips, const cnn_conv_grid *grid,
                            int64_t channels, int64_t *offset);

/* The pixels of a strip, counted over all images. */
static inline int64_t cnn_conv_strip_begin(const cnn_conv *conv, const cnn_conv_strips *strips, int64_t index)
{
    return (strips->lines / strips->count * index + cnn_min_i64(index, strips->lines % strips->count)) * conv->ow;
}

/* Fills a strip, and src[p] = the start of the window of its pixel p. */
void cnn_conv_strip_fill(const cnn_conv *conv, const cnn_conv_strips *strips, const float *x, int64_t index,
                         float *strip, const float **src);

#endif
