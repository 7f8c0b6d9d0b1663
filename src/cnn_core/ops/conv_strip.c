#include "ops/conv_strip.h"

#include <string.h>

#include "ops/conv_tiling.h"

#define MOST_CHANNELS 32        /* of a group: beyond, pointers cost little */
#define MOST_BYTES (256 << 10)  /* of a strip: a share of the second-level cache */
#define GOOD_BYTES (48 << 10)   /* of a strip that is longer than it must be */

static int64_t extent(const cnn_conv *conv, int axis)
{
    return ((axis == 0 ? conv->kh : conv->kw) - 1) * conv->dilation[axis] + 1;
}

static size_t strip_bytes(const cnn_conv *conv, int64_t row, int64_t lines)
{
    /* The most images that so many lines can touch; each begins anew. */
    const int64_t images = cnn_min_i64(cnn_ceil_div(lines - 1, conv->oh) + 1, lines);
    const size_t rows = cnn_size_add(cnn_size_mul((size_t)(lines - images), (size_t)conv->stride[0]),
                                     cnn_size_mul((size_t)images, (size_t)extent(conv, 0)));
    return cnn_size_align(cnn_size_mul(rows, cnn_size_mul((size_t)row, sizeof(float))));
}

static int64_t row_floats(const cnn_conv *conv)
{
    return ((conv->ow - 1) * conv->stride[1] + extent(conv, 1)) * conv->ic;
}

bool cnn_conv_strips_suit(const cnn_conv *conv)
{
    return conv->kh * conv->kw > 1 && conv->ic / conv->groups <= MOST_CHANNELS && conv->stride[0] <= extent(conv, 0) &&
           conv->stride[1] <= extent(conv, 1) && extent(conv, 0) <= 2 * conv->ih && extent(conv, 1) <= 2 * conv->iw &&
           row_floats(conv) < MOST_BYTES && strip_bytes(conv, row_floats(conv), 1) <= MOST_BYTES;
}

cnn_conv_strips cnn_conv_strips_of(const cnn_conv *conv, int64_t pixels)
{
    cnn_conv_strips strips = {.lines = conv->n * conv->oh, .row = row_floats(conv)};
    int64_t lines = cnn_min_i64(cnn_ceil_div(pixels, conv->ow), strips.lines);
    while (lines > 1 && strip_bytes(conv, strips.row, lines) > GOOD_BYTES) lines--;
    strips.count = cnn_ceil_div(strips.lines, lines);
    lines = cnn_ceil_div(strips.lines, strips.count);
    strips.most_pixels = lines * conv->ow;
    strips.bytes = strip_bytes(conv, strips.row, lines);
    return strips;
}

void cnn_conv_strip_offsets(const cnn_conv *conv, const cnn_conv_strips *strips, const cnn_conv_grid *grid,
                            int64_t channels, int64_t *offset)
{
    for (int64_t r = 0; r < grid->row_taps; r++)
        for (int64_t s = 0; s < grid->col_taps; s++) {
            const int64_t start = grid->row_tap[r].k * conv->dilation[0] * strips->row +
                                  grid->col_tap[s].k * conv->dilation[1] * conv->ic;
            for (int64_t c = 0; c < channels; c++) *offset++ = start + c;
        }
}

/* to = row `row` of an image as the windows see it, zero outside. */
static void fill_row(const cnn_conv *conv, const cnn_conv_strips *strips, const float *image, int64_t row, float *to)
{
    if (row < 0 || row >= conv->ih) {
        memset(to, 0, (size_t)strips->row * sizeof *to);
        return;
    }
    const int64_t left = cnn_min_i64(conv->padding[1] * conv->ic, strips->row);
    const int64_t inside = cnn_min_i64(conv->iw * conv->ic, strips->row - left);
    for (int64_t i = 0; i < left; i++) to[i] = 0.0f;
    memcpy(to + left, image + row * conv->iw * conv->ic, (size_t)inside * sizeof *to);
    for (int64_t i = left + inside; i < strips->row; i++) to[i] = 0.0f;
}

void cnn_conv_strip_fill(const cnn_conv *conv, const cnn_conv_strips *strips, const float *x, int64_t index,
                         float *strip, const float **src)
{
    int64_t line = cnn_conv_strip_begin(conv, strips, index) / conv->ow;
    const int64_t end = cnn_conv_strip_begin(conv, strips, index + 1) / conv->ow;
    while (line < end) { /* image by image */
        const int64_t first = line % conv->oh, count = cnn_min_i64(end - line, conv->oh - first);
        const int64_t rows = (count - 1) * conv->stride[0] + extent(conv, 0);
        const float *image = x + line / conv->oh * conv->ih * conv->iw * conv->ic;
        for (int64_t r = 0; r < rows; r++)
            fill_row(conv, strips, image, first * conv->stride[0] - conv->padding[0] + r, strip + r * strips->row);
        for (int64_t i = 0; i < count; i++)
            for (int64_t j = 0; j < conv->ow; j++)
                *src++ = strip + i * conv->stride[0] * strips->row + j * conv->stride[1] * conv->ic;
        strip += rows * strips->row;
        line += count;
    }
}
