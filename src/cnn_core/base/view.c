/* Foreign memory comes in here, and only here: any strides, any alignment, any byte order. */
#include <string.h>

#include "base/shape.h"
#include "thread/thread.h"

/* The view with its axes in the order of the dense destination, neighbours merged where both sides allow it. */
typedef struct walk {
    const char *data;
    char *dst;
    int32_t rank;
    int64_t size[CNN_MAX_RANK], stride[CNN_MAX_RANK];
    int64_t itemsize;   /* of both sides */
    bool swap;
    int64_t row_blocks; /* tasks along the axis before the last */
} walk;

static bool host_matches(const cnn_view *view, cnn_dtype dtype)
{
    if (dtype == CNN_INT64) return view->kind == 'i' && view->itemsize == 8;
    return view->kind == 'f' && view->itemsize == (int32_t)cnn_dtype_bytes(dtype);
}

int32_t cnn_view_is_dense(const cnn_view *view, cnn_dtype dtype, int32_t channels_last)
{
    if (!host_matches(view, dtype) || view->byteswapped) return 0;
    if ((uintptr_t)view->data % cnn_dtype_bytes(dtype) != 0) return 0;
    int64_t stride[CNN_MAX_RANK];
    cnn_shape_strides(&view->shape, channels_last != 0, stride);
    if (cnn_shape_count(&view->shape) == 0) return 1;
    for (int32_t i = 0; i < view->shape.rank; i++)
        if (view->shape.dim[i] != 1 && view->stride[i] != stride[i] * view->itemsize) return 0;
    return 1;
}

static walk make_walk(const cnn_view *view, bool channels_last)
{
    static const int32_t nhwc[4] = {0, 2, 3, 1};
    walk w = {.data = view->data, .itemsize = view->itemsize, .swap = view->byteswapped != 0};
    for (int32_t i = 0; i < view->shape.rank; i++) {
        const int32_t axis = channels_last && view->shape.rank == 4 ? nhwc[i] : i;
        const int64_t size = view->shape.dim[axis], stride = view->stride[axis];
        if (size == 1) continue;
        if (w.rank > 0 && w.stride[w.rank - 1] == stride * size) { /* the outer axis steps over whole inner ones */
            w.size[w.rank - 1] *= size;
            w.stride[w.rank - 1] = stride;
        } else {
            w.size[w.rank] = size;
            w.stride[w.rank++] = stride;
        }
    }
    while (w.rank < 2) { /* the copy below works on two axes */
        memmove(w.size + 1, w.size, (size_t)w.rank * sizeof w.size[0]);
        memmove(w.stride + 1, w.stride, (size_t)w.rank * sizeof w.stride[0]);
        w.size[0] = 1;
        w.stride[0] = 0;
        w.rank++;
    }
    return w;
}

static void swap_bytes(char *item, int64_t itemsize)
{
    for (int64_t i = 0; i < itemsize / 2; i++) {
        const char c = item[i];
        item[i] = item[itemsize - 1 - i];
        item[itemsize - 1 - i] = c;
    }
}

/* Rows [row, row_end) of a matrix with byte strides into dense rows. Small tiles keep both sides in cache when the source
 * runs down its columns, as planar images do. */
#define TILE 16

#define DEFINE_COPY(bytes, type)                                                                                     \
    static void copy_rows_##bytes(const char *src, int64_t row_stride, int64_t col_stride, char *dst, int64_t row,   \
                                  int64_t row_end, int64_t cols)                                                     \
    {                                                                                                                \
        for (int64_t r0 = row; r0 < row_end; r0 += TILE)                                                             \
            for (int64_t c0 = 0; c0 < cols; c0 += TILE)                                                              \
                for (int64_t r = r0; r < cnn_min_i64(r0 + TILE, row_end); r++)                                       \
                    for (int64_t c = c0; c < cnn_min_i64(c0 + TILE, cols); c++) {                                    \
                        type item; /* through memcpy: the source may be unaligned */                                 \
                        memcpy(&item, src + r * row_stride + c * col_stride, sizeof item);                           \
                        memcpy(dst + (r * cols + c) * (int64_t)sizeof item, &item, sizeof item);                     \
                    }                                                                                                \
    }
DEFINE_COPY(4, uint32_t)
DEFINE_COPY(8, uint64_t)

#define ROWS_PER_TASK 256

static void copy_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const walk *w = arg;
    const int64_t rows = w->size[w->rank - 2], cols = w->size[w->rank - 1];
    const int64_t row = task % w->row_blocks * ROWS_PER_TASK, row_end = cnn_min_i64(row + ROWS_PER_TASK, rows);
    const int64_t matrix = task / w->row_blocks;
    const char *src = w->data;
    int64_t rest = matrix;
    for (int32_t axis = w->rank - 3; axis >= 0; axis--) {
        src += rest % w->size[axis] * w->stride[axis];
        rest /= w->size[axis];
    }
    char *dst = w->dst + matrix * rows * cols * w->itemsize;
    const int64_t row_stride = w->stride[w->rank - 2], col_stride = w->stride[w->rank - 1];
    if (col_stride == w->itemsize) {
        for (int64_t r = row; r < row_end; r++)
            memcpy(dst + r * cols * w->itemsize, src + r * row_stride, (size_t)(cols * w->itemsize));
    } else {
        (w->itemsize == 4 ? copy_rows_4 : copy_rows_8)(src, row_stride, col_stride, dst, row, row_end, cols);
    }
    if (w->swap)
        for (int64_t i = row * cols; i < row_end * cols; i++) swap_bytes(dst + i * w->itemsize, w->itemsize);
}

/* One integer of any width and byte order; false if it does not fit int64. */
static bool read_integer(const char *from, const cnn_view *view, int64_t *value)
{
    char item[8];
    memcpy(item, from, (size_t)view->itemsize);
    if (view->byteswapped) swap_bytes(item, view->itemsize);
    const bool is_signed = view->kind == 'i';
    int8_t i8;
    int16_t i16;
    int32_t i32;
    switch (view->itemsize) {
    case 1: memcpy(&i8, item, 1); *value = is_signed ? i8 : (uint8_t)i8; return true;
    case 2: memcpy(&i16, item, 2); *value = is_signed ? i16 : (uint16_t)i16; return true;
    case 4: memcpy(&i32, item, 4); *value = is_signed ? i32 : (int64_t)(uint32_t)i32; return true;
    default: memcpy(value, item, 8); return is_signed || *value >= 0;
    }
}

static cnn_status import_integers(const cnn_view *view, int64_t *dst)
{
    int64_t index[CNN_MAX_RANK] = {0};
    const int64_t count = cnn_shape_count(&view->shape);
    const char *from = view->data;
    for (int64_t i = 0; i < count; i++) {
        if (!read_integer(from, view, &dst[i]))
            return cnn_fail(CNN_INVALID_VALUE, "got an unsigned value above the largest int64");
        for (int32_t axis = view->shape.rank - 1; axis >= 0; axis--) { /* count up, carrying */
            from += view->stride[axis];
            if (++index[axis] < view->shape.dim[axis]) break;
            from -= view->stride[axis] * view->shape.dim[axis];
            index[axis] = 0;
        }
    }
    return CNN_OK;
}

cnn_status cnn_view_import(const cnn_view *view, cnn_dtype dtype, int32_t channels_last, void *dst)
{
    CNN_TRY(cnn_shape_check(&view->shape));
    if (dtype == CNN_INT64) {
        const bool integer = view->kind == 'i' || view->kind == 'u' || view->kind == 'b';
        if (!integer || (view->itemsize != 1 && view->itemsize != 2 && view->itemsize != 4 && view->itemsize != 8))
            return cnn_fail(CNN_INVALID_TYPE, "got elements that are no integers, expected an integer type");
        return import_integers(view, dst);
    }
    if (!host_matches(view, dtype))
        return cnn_fail(CNN_INVALID_TYPE, "got elements of another type, expected %s", cnn_dtype_name(dtype));
    const int64_t count = cnn_shape_count(&view->shape);
    if (count == 0) return CNN_OK;
    walk w = make_walk(view, channels_last != 0);
    w.dst = dst;
    const int64_t rows = w.size[w.rank - 2], cols = w.size[w.rank - 1];
    w.row_blocks = cnn_ceil_div(rows, ROWS_PER_TASK);
    const int64_t tasks = count / (rows * cols) * w.row_blocks;
    cnn_parallel(cnn_useful_threads(cnn_get_num_threads(), (double)count * 0.5), tasks, copy_task, &w);
    return CNN_OK;
}
