#include "ops/nest.h"

#include <string.h>

/* Elements in a task. */
#define TASK_ELEMENTS 16384

static int64_t magnitude(int64_t x)
{
    return x < 0 ? -x : x;
}

/* True where every operand goes from the end of `inner` to the next of `outer` in one stride. */
static bool mergeable(const cnn_nest *nest, int32_t outer, int32_t inner)
{
    for (int32_t i = 0; i < nest->operands; i++)
        if (nest->stride[i][outer] != nest->stride[i][inner] * nest->size[inner]) return false;
    return true;
}

static void merge_axes(cnn_nest *nest)
{
    int32_t kept = 0;
    for (int32_t axis = 1; axis < nest->rank; axis++) {
        if (mergeable(nest, kept, axis)) {
            nest->size[kept] *= nest->size[axis];
        } else {
            kept++;
            nest->size[kept] = nest->size[axis];
        }
        for (int32_t i = 0; i < nest->operands; i++) nest->stride[i][kept] = nest->stride[i][axis];
    }
    nest->rank = kept + 1;
}

cnn_nest cnn_nest_make(const cnn_shape *space, int32_t operands, int64_t stride[][CNN_MAX_RANK])
{
    cnn_nest nest = {.operands = operands};
    int32_t order[CNN_MAX_RANK];
    for (int32_t axis = 0; axis < space->rank; axis++) {
        if (space->dim[axis] == 1) continue;
        int32_t at = nest.rank++;
        for (; at > 0 && magnitude(stride[0][order[at - 1]]) < magnitude(stride[0][axis]); at--)
            order[at] = order[at - 1];
        order[at] = axis;
    }
    for (int32_t axis = 0; axis < nest.rank; axis++) {
        nest.size[axis] = space->dim[order[axis]];
        for (int32_t i = 0; i < operands; i++) nest.stride[i][axis] = stride[i][order[axis]];
    }
    if (nest.rank == 0) {
        nest.rank = 1; /* one element; its strides do not matter, 1 reads as dense */
        nest.size[0] = 1;
        for (int32_t i = 0; i < operands; i++) nest.stride[i][0] = 1;
    }
    merge_axes(&nest);
    return nest;
}

void cnn_source_strides(const cnn_node *node, int32_t i, const cnn_shape *space, int64_t stride[CNN_MAX_RANK])
{
    const cnn_shape *shape = &node->src_shape[i];
    int64_t own[CNN_MAX_RANK];
    cnn_shape_strides(shape, !node->row_major[i], own);
    const int32_t added = space->rank - shape->rank;
    for (int32_t axis = 0; axis < space->rank; axis++)
        stride[axis] = axis < added || shape->dim[axis - added] == 1 ? 0 : own[axis - added];
}

cnn_status cnn_broadcast_shape(const cnn_shape *a, const cnn_shape *b, const char *name, cnn_shape *shape)
{
    shape->rank = a->rank > b->rank ? a->rank : b->rank;
    for (int32_t k = 1; k <= shape->rank; k++) {
        const int64_t x = k <= a->rank ? a->dim[a->rank - k] : 1, y = k <= b->rank ? b->dim[b->rank - k] : 1;
        if (x != y && x != 1 && y != 1) {
            char got[CNN_SHAPE_TEXT], text[CNN_SHAPE_TEXT];
            return cnn_fail(CNN_INVALID_VALUE, "%s: got shape %s, expected one that broadcasts with %s", name,
                            cnn_shape_text(b, got), cnn_shape_text(a, text));
        }
        shape->dim[shape->rank - k] = x == 1 ? y : x;
    }
    return CNN_OK;
}

void cnn_nest_seek(const cnn_nest *nest, int32_t axes, int64_t flat, cnn_nest_cursor *cursor)
{
    memset(cursor, 0, sizeof *cursor);
    for (int32_t axis = axes - 1; axis >= 0; axis--) {
        cursor->index[axis] = flat % nest->size[axis];
        flat /= nest->size[axis];
        for (int32_t i = 0; i < nest->operands; i++) cursor->offset[i] += cursor->index[axis] * nest->stride[i][axis];
    }
}

void cnn_nest_next(const cnn_nest *nest, int32_t axes, cnn_nest_cursor *cursor)
{
    for (int32_t axis = axes - 1; axis >= 0; axis--) {
        const bool wraps = ++cursor->index[axis] == nest->size[axis];
        const int64_t steps = wraps ? 1 - nest->size[axis] : 1;
        for (int32_t i = 0; i < nest->operands; i++) cursor->offset[i] += steps * nest->stride[i][axis];
        if (!wraps) return;
        cursor->index[axis] = 0;
    }
}

/* The innermost axis in pieces of `cols`; the rows of all other axes, `all_rows` of them, in runs of `rows`. */
typedef struct nest_cut {
    int64_t all_rows, rows, cols, pieces;
} nest_cut;

static nest_cut cut_nest(const cnn_nest *nest)
{
    const int64_t n = nest->size[nest->rank - 1];
    nest_cut cut = {.all_rows = 1, .cols = cnn_min_i64(n, TASK_ELEMENTS)};
    for (int32_t axis = 0; axis < nest->rank - 1; axis++) cut.all_rows *= nest->size[axis];
    if (n == 0) return cut;
    cut.rows = TASK_ELEMENTS / cut.cols;
    cut.pieces = cnn_ceil_div(n, cut.cols);
    return cut;
}

int64_t cnn_nest_tasks(const cnn_nest *nest)
{
    const nest_cut cut = cut_nest(nest);
    return cut.rows == 0 ? 0 : cnn_ceil_div(cut.all_rows, cut.rows) * cut.pieces;
}

typedef struct nest_job {
    const cnn_nest *nest;
    nest_cut cut;
    cnn_nest_fn *fn;
    void *arg;
} nest_job;

static void run_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const nest_job *job = arg;
    const cnn_nest *nest = job->nest;
    const int32_t inner = nest->rank - 1;
    const int64_t col = task % job->cut.pieces * job->cut.cols;
    const int64_t n = cnn_min_i64(job->cut.cols, nest->size[inner] - col);
    int64_t row = task / job->cut.pieces * job->cut.rows;
    const int64_t end = cnn_min_i64(row + job->cut.rows, job->cut.all_rows);
    /* Rows that share all but the second innermost index go to fn together. */
    const int32_t outer = inner > 0 ? inner - 1 : 0;
    const int64_t rows_each = inner > 0 ? nest->size[inner - 1] : 1;

    cnn_nest_cursor cursor;
    cnn_nest_seek(nest, outer, row / rows_each, &cursor);
    while (row < end) {
        const int64_t first = row % rows_each, rows = cnn_min_i64(rows_each - first, end - row);
        int64_t offset[CNN_NEST_OPERANDS];
        for (int32_t i = 0; i < nest->operands; i++)
            offset[i] = cursor.offset[i] + first * cnn_nest_pitch(nest, i) + col * cnn_nest_step(nest, i);
        job->fn(job->arg, task, offset, rows, n);
        row += rows;
        cnn_nest_next(nest, outer, &cursor);
    }
}

void cnn_nest_run(const cnn_nest *nest, int32_t threads, double cost, cnn_nest_fn *fn, void *arg)
{
    nest_job job = {nest, cut_nest(nest), fn, arg};
    const double elements = (double)job.cut.all_rows * (double)nest->size[nest->rank - 1];
    cnn_parallel(cnn_useful_threads(threads, cost * elements), cnn_nest_tasks(nest), run_task, &job);
}

typedef struct copy_job {
    const cnn_nest *nest;
    const float *src;
    float *dst;
    bool adds;
} copy_job;

static void copy_rows(void *arg, int64_t task, const int64_t *offset, int64_t rows, int64_t n)
{
    (void)task;
    const copy_job *job = arg;
    const int64_t dst_step = cnn_nest_step(job->nest, 0), src_step = cnn_nest_step(job->nest, 1);
    const bool dense = dst_step == 1 && src_step == 1;
    for (int64_t row = 0; row < rows; row++) {
        float *restrict dst = job->dst + offset[0] + row * cnn_nest_pitch(job->nest, 0);
        const float *restrict src = job->src + offset[1] + row * cnn_nest_pitch(job->nest, 1);
        if (dense && job->adds)
            for (int64_t i = 0; i < n; i++) dst[i] += src[i];
        else if (dense)
            memcpy(dst, src, (size_t)n * sizeof *dst);
        else if (job->adds)
            for (int64_t i = 0; i < n; i++) dst[i * dst_step] += src[i * src_step];
        else
            for (int64_t i = 0; i < n; i++) dst[i * dst_step] = src[i * src_step];
    }
}

void cnn_nest_copy(const cnn_nest *nest, int32_t threads, const float *src, float *dst)
{
    copy_job job = {nest, src, dst, false};
    cnn_nest_run(nest, threads, 0.25, copy_rows, &job);
}

void cnn_nest_add(const cnn_nest *nest, int32_t threads, const float *src, float *dst)
{
    copy_job job = {nest, src, dst, true};
    cnn_nest_run(nest, threads, 0.3, copy_rows, &job);
}
