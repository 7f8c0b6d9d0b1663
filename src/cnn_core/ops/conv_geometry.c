#include "ops/conv_geometry.h"

#include <string.h>

/* The image along one axis, as a pass sees it. */
typedef struct axis_geometry {
    int64_t src_size, dst_size, kernel, stride, dilation, padding;
} axis_geometry;

static axis_geometry geometry_of(const cnn_conv *conv, cnn_conv_pass pass, int axis)
{
    const int64_t x = axis == 0 ? conv->ih : conv->iw, y = axis == 0 ? conv->oh : conv->ow;
    const bool back = pass == CNN_CONV_BACKWARD_DATA;
    return (axis_geometry){.src_size = back ? y : x,
                           .dst_size = back ? x : y,
                           .kernel = axis == 0 ? conv->kh : conv->kw,
                           .stride = conv->stride[axis],
                           .dilation = conv->dilation[axis],
                           .padding = conv->padding[axis]};
}

static int64_t count_phases(const axis_geometry *g, cnn_conv_pass pass)
{
    return pass == CNN_CONV_BACKWARD_DATA ? cnn_min_i64(g->stride, g->dst_size) : 1;
}

int64_t cnn_conv_phases(const cnn_conv *conv, cnn_conv_pass pass)
{
    const axis_geometry rows = geometry_of(conv, pass, 0), cols = geometry_of(conv, pass, 1);
    return count_phases(&rows, pass) * count_phases(&cols, pass);
}

size_t cnn_conv_axes_bytes(const cnn_conv *conv, cnn_conv_pass pass)
{
    size_t bytes = 0;
    for (int axis = 0; axis < 2; axis++) {
        const axis_geometry g = geometry_of(conv, pass, axis);
        bytes += cnn_size_align((size_t)count_phases(&g, pass) * sizeof(cnn_conv_phase));
        bytes += cnn_size_align((size_t)g.kernel * sizeof(cnn_conv_tap));
    }
    return bytes;
}

/* Positions of the grid of a phase. */
static int64_t count_positions(const axis_geometry *g, bool back, int64_t phase)
{
    return back ? (g->dst_size - phase - 1) / g->stride + 1 : g->dst_size;
}

/* Phase and offset of tap k, whose kernel index counts so that offsets rise with it. False if no grid position reads
 * inside the image by it.
 *
 * Forward reads x at i * stride + k * dilation - padding. Transposed, x position `phase + i * stride` reads those y
 * positions j with j * stride + k * dilation - padding equal to it: stride divides phase + padding - k * dilation. */
static bool place_tap(const cnn_conv_axis *axis, const axis_geometry *g, bool back, int64_t index, int64_t *phase,
                      cnn_conv_tap *tap)
{
    tap->k = back ? g->kernel - 1 - index : index;
    const int64_t shift = tap->k * g->dilation - g->padding;
    *phase = 0;
    tap->offset = shift;
    if (back) {
        const int64_t remainder = shift % g->stride;
        *phase = remainder < 0 ? remainder + g->stride : remainder;
        if (*phase >= axis->phases) return false;
        tap->offset = (*phase - shift) / g->stride;
    }
    const int64_t step = axis->src_step;
    tap->begin = tap->offset >= 0 ? 0 : cnn_ceil_div(-tap->offset, step);
    tap->end = tap->offset >= g->src_size
                   ? 0
                   : cnn_min_i64(count_positions(g, back, *phase), (g->src_size - 1 - tap->offset) / step + 1);
    return tap->begin < tap->end;
}

bool cnn_conv_reads_all_taps(const cnn_conv *conv, cnn_conv_pass pass)
{
    const bool back = pass == CNN_CONV_BACKWARD_DATA;
    for (int i = 0; i < 2; i++) {
        const axis_geometry g = geometry_of(conv, pass, i);
        const cnn_conv_axis axis = {.phases = count_phases(&g, pass), .src_step = back ? 1 : g.stride};
        int64_t phase;
        cnn_conv_tap tap;
        for (int64_t k = 0; k < g.kernel; k++)
            if (!place_tap(&axis, &g, back, k, &phase, &tap)) return false;
    }
    return true;
}

static void make_axis(const cnn_conv *conv, cnn_conv_pass pass, int index, char **cursor, cnn_conv_axis *axis)
{
    const axis_geometry g = geometry_of(conv, pass, index);
    const bool back = pass == CNN_CONV_BACKWARD_DATA;
    axis->phases = count_phases(&g, pass);
    axis->dst_step = back ? g.stride : 1;
    axis->src_step = back ? 1 : g.stride;
    axis->taps = 0;
    axis->phase = cnn_take(cursor, (size_t)axis->phases * sizeof *axis->phase);
    axis->tap = cnn_take(cursor, (size_t)g.kernel * sizeof *axis->tap);
    for (int64_t p = 0; p < axis->phases; p++)
        axis->phase[p] = (cnn_conv_phase){.count = count_positions(&g, back, p)};

    /* A counting sort of the taps by phase: it keeps their order within each. */
    int64_t phase;
    cnn_conv_tap tap;
    for (int64_t k = 0; k < g.kernel; k++)
        if (place_tap(axis, &g, back, k, &phase, &tap)) axis->phase[phase].taps++;
    for (int64_t p = 0; p < axis->phases; p++) {
        axis->phase[p].first_tap = axis->taps;
        axis->taps += axis->phase[p].taps;
        axis->phase[p].taps = 0;
    }
    for (int64_t k = 0; k < g.kernel; k++)
        if (place_tap(axis, &g, back, k, &phase, &tap))
            axis->tap[axis->phase[phase].first_tap + axis->phase[phase].taps++] = tap;
}

void cnn_conv_axes_make(const cnn_conv *conv, cnn_conv_pass pass, char **cursor, cnn_conv_axes *axes)
{
    make_axis(conv, pass, 0, cursor, &axes->rows);
    make_axis(conv, pass, 1, cursor, &axes->cols);
}

cnn_conv_grid cnn_conv_grid_at(const cnn_conv_axes *axes, int64_t phase)
{
    const cnn_conv_axis *rows = &axes->rows, *cols = &axes->cols;
    const int64_t row_phase = phase / cols->phases, col_phase = phase % cols->phases;
    const cnn_conv_phase *row = &rows->phase[row_phase], *col = &cols->phase[col_phase];
    return (cnn_conv_grid){
        .h = row->count,
        .w = col->count,
        .row_origin = row_phase,
        .col_origin = col_phase,
        .row_step = rows->dst_step,
        .col_step = cols->dst_step,
        .src_row_step = rows->src_step,
        .src_col_step = cols->src_step,
        .row_taps = row->taps,
        .col_taps = col->taps,
        .row_tap = rows->tap + row->first_tap,
        .col_tap = cols->tap + col->first_tap,
        .first_tap = row->first_tap * cols->taps + row->taps * col->first_tap,
    };
}

const float *cnn_conv_zeros(char **cursor, int64_t channels)
{
    float *zeros = cnn_take(cursor, cnn_float_bytes(channels));
    for (int64_t c = 0; c < channels; c++) zeros[c] = 0.0f;
    return zeros;
}

/* A run of neighbouring pixels in one row of the grid. */
typedef struct walk {
    int64_t image, row, col;
} walk;

static walk walk_from(const cnn_conv_grid *grid, int64_t pixel)
{
    const int64_t line = pixel / grid->w;
    return (walk){.image = line / grid->h, .row = line % grid->h, .col = pixel % grid->w};
}

static void walk_on(const cnn_conv_grid *grid, walk *at, int64_t run)
{
    at->col += run;
    if (at->col < grid->w) return;
    at->col = 0;
    if (++at->row < grid->h) return;
    at->row = 0;
    at->image++;
}

/* Row `row` of the grid as the row tap sees it; the tap must lie inside. */
static const float *src_row(const cnn_conv_grid *grid, const cnn_conv_image *src, const walk *at,
                            const cnn_conv_tap *tap)
{
    return src->data + (at->image * src->h + at->row * grid->src_row_step + tap->offset) * src->w * src->c;
}

void cnn_conv_locate_src(const cnn_conv_grid *grid, const cnn_conv_image *src, const float *zero, int64_t first,
                         int64_t pixels, const float **pointers)
{
    const int64_t step = grid->src_col_step * src->c;
    walk at = walk_from(grid, first);
    for (int64_t p = 0, run; p < pixels; p += run) {
        run = cnn_min_i64(pixels - p, grid->w - at.col);
        const float **to = pointers + p;
        for (int64_t r = 0; r < grid->row_taps; r++) {
            const cnn_conv_tap *row_tap = &grid->row_tap[r];
            if (!cnn_conv_inside(row_tap, at.row)) {
                for (int64_t s = 0; s < grid->col_taps; s++, to += pixels)
                    for (int64_t i = 0; i < run; i++) to[i] = zero;
                continue;
            }
            const float *row = src_row(grid, src, &at, row_tap);
            for (int64_t s = 0; s < grid->col_taps; s++, to += pixels) {
                const cnn_conv_tap *col_tap = &grid->col_tap[s];
                const int64_t begin = cnn_max_i64(cnn_min_i64(col_tap->begin - at.col, run), 0);
                const int64_t end = cnn_max_i64(cnn_min_i64(col_tap->end - at.col, run), begin);
                for (int64_t i = 0; i < begin; i++) to[i] = zero;
                for (int64_t i = begin; i < end; i++) to[i] = row + col_tap->offset * src->c + (at.col + i) * step;
                for (int64_t i = end; i < run; i++) to[i] = zero;
            }
        }
        walk_on(grid, &at, run);
    }
}

void cnn_conv_locate_dst(const cnn_conv_grid *grid, int64_t dst_h, int64_t dst_w, float *dst, int64_t dst_c,
                         int64_t first, int64_t pixels, float **pointers)
{
    walk at = walk_from(grid, first);
    for (int64_t p = 0, run; p < pixels; p += run) {
        run = cnn_min_i64(pixels - p, grid->w - at.col);
        const int64_t row = at.image * dst_h + grid->row_origin + at.row * grid->row_step;
        float *to = dst + (row * dst_w + grid->col_origin + at.col * grid->col_step) * dst_c;
        for (int64_t i = 0; i < run; i++) pointers[p + i] = to + i * grid->col_step * dst_c;
        walk_on(grid, &at, run);
    }
}
