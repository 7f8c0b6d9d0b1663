/* Softmax and log-softmax over one axis. Memory is [outer][n][inner] with n along the axis: where inner is 1 each
 * distribution is contiguous (channels of an image, the last axis of a matrix), else the vectors run along inner. */
#include "ops/check.h"
#include "ref/ref.h"

enum {
    TASK_FLOATS = 8192, /* numbers worth a task */
    BAND = 64           /* columns that a task takes at least: whole cache lines */
};

typedef struct run {
    int64_t outer, n, inner;
    int64_t task_outer;  /* of outer, in a task */
    int64_t band, bands; /* of inner, in a task; tasks for each task_outer */
    const float *src;    /* backward: dst */
    const float *diff_dst;
    float *dst; /* backward: diff_src */
    cnn_softmax_rows_fn *rows;
    cnn_softmax_columns_fn *columns;
    cnn_softmax_rows_backward_fn *rows_backward;
    cnn_softmax_columns_backward_fn *columns_backward;
} run;

static run run_of(const cnn_node *node)
{
    int64_t stride[CNN_MAX_RANK];
    const int32_t axis = node->attributes.axis.axis;
    cnn_shape_strides(&node->dst_shape, true, stride);
    run r = {.n = node->dst_shape.dim[axis], .inner = stride[axis]};
    r.outer = cnn_shape_count(&node->dst_shape) / (r.n * r.inner);
    r.task_outer = cnn_max_i64(TASK_FLOATS / (r.n * r.inner), 1);
    r.band = cnn_max_i64(TASK_FLOATS / r.n / BAND * BAND, BAND);
    r.bands = cnn_ceil_div(r.inner, r.band);
    return r;
}

static void run_tasks(const run *r, const cnn_call *call, cnn_task_fn *task, double ns_per_element)
{
    const double work = ns_per_element * (double)r->outer * (double)r->n * (double)r->inner;
    cnn_parallel(cnn_useful_threads(call->threads, work), cnn_ceil_div(r->outer, r->task_outer) * r->bands, task,
                 (void *)r);
}

/* The part of a task: *outer of outer and, of each, *width columns. Gives where it starts. */
static int64_t part_of(const run *r, int64_t task, int64_t *outer, int64_t *width)
{
    const int64_t begin = task / r->bands * r->task_outer, column = task % r->bands * r->band;
    *outer = cnn_min_i64(r->task_outer, r->outer - begin);
    *width = cnn_min_i64(r->band, r->inner - column);
    return begin * r->n * r->inner + column;
}

static void forward_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const run *r = arg;
    int64_t outer, width;
    const int64_t offset = part_of(r, task, &outer, &width), step = r->n * r->inner;
    if (r->inner == 1)
        r->rows(outer, r->n, r->src + offset, r->dst + offset);
    else
        for (int64_t at = offset; at < offset + outer * step; at += step)
            r->columns(width, r->n, r->inner, r->src + at, r->dst + at);
}

static void backward_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const run *r = arg;
    int64_t outer, width;
    const int64_t offset = part_of(r, task, &outer, &width), step = r->n * r->inner;
    if (r->inner == 1)
        r->rows_backward(outer, r->n, r->src + offset, r->diff_dst + offset, r->dst + offset);
    else
        for (int64_t at = offset; at < offset + outer * step; at += step)
            r->columns_backward(width, r->n, r->inner, r->src + at, r->diff_dst + at, r->dst + at);
}

static cnn_status forward(const cnn_call *call, cnn_softmax_rows_fn *rows, cnn_softmax_columns_fn *columns)
{
    run r = run_of(call->node);
    r.src = call->src[0];
    r.dst = call->dst;
    r.rows = rows;
    r.columns = columns;
    run_tasks(&r, call, forward_task, 1.5);
    return CNN_OK;
}

static cnn_status backward(const cnn_call *call, cnn_softmax_rows_backward_fn *rows,
                           cnn_softmax_columns_backward_fn *columns)
{
    if (call->diff_src[0] == NULL) return CNN_OK;
    run r = run_of(call->node);
    r.src = call->dst;
    r.diff_dst = call->diff_dst;
    r.dst = call->diff_src[0];
    r.rows_backward = rows;
    r.columns_backward = columns;
    run_tasks(&r, call, backward_task, 1.0);
    return CNN_OK;
}

static cnn_status infer(cnn_node *node)
{
    const cnn_shape *src = &node->src_shape[0];
    const int32_t axis = node->attributes.axis.axis;
    char text[CNN_SHAPE_TEXT];
    CNN_TRY(cnn_check_working_type(node, 0, "x"));
    if (src->rank == 0) return cnn_fail(CNN_INVALID_VALUE, "x: got shape (), expected at least 1 dimension");
    if (src->rank == 4 && node->row_major[0])
        return cnn_fail(CNN_UNSUPPORTED, "x: got a parameter or state, expected an activation (channels-last)");
    if (axis < -src->rank || axis >= src->rank)
        return cnn_fail(CNN_INVALID_VALUE, "dim: got %d, expected %d to %d, as x %s has %d dimensions", axis,
                        -src->rank, src->rank - 1, cnn_shape_text(src, text), src->rank);
    node->attributes.axis.axis = axis < 0 ? axis + src->rank : axis;
    node->dst_shape = *src;
    return CNN_OK;
}

/* ---- softmax ----------------------------------------------------------------------------------------------------- */

static cnn_status softmax_forward(const cnn_call *call)
{
    const struct cnn_softmax_kernels *k = &call->node->kernels->softmax;
    return forward(call, k->softmax_rows, k->softmax_columns);
}

static cnn_status softmax_backward(const cnn_call *call)
{
    const struct cnn_softmax_kernels *k = &call->node->kernels->softmax;
    return backward(call, k->softmax_rows_backward, k->softmax_columns_backward);
}

const cnn_op_row cnn_op_softmax = {
    .name = "softmax",
    .fields = cnn_fields_axis,
    .min_sources = 1,
    .max_sources = 1,
    .keeps_dst = true,
    .infer = infer,
    .forward = softmax_forward,
    .backward = softmax_backward,
    .reference_forward = cnn_ref_softmax_forward,
    .reference_backward = cnn_ref_softmax_backward,
};

/* ---- log-softmax ------------------------------------------------------------------------------------------------- */

static cnn_status log_softmax_forward(const cnn_call *call)
{
    const struct cnn_softmax_kernels *k = &call->node->kernels->softmax;
    return forward(call, k->log_softmax_rows, k->log_softmax_columns);
}

static cnn_status log_softmax_backward(const cnn_call *call)
{
    const struct cnn_softmax_kernels *k = &call->node->kernels->softmax;
    return backward(call, k->log_softmax_rows_backward, k->log_softmax_columns_backward);
}

const cnn_op_row cnn_op_log_softmax = {
    .name = "log_softmax",
    .fields = cnn_fields_axis,
    .min_sources = 1,
    .max_sources = 1,
    .keeps_dst = true,
    .infer = infer,
    .forward = log_softmax_forward,
    .backward = log_softmax_backward,
    .reference_forward = cnn_ref_log_softmax_forward,
    .reference_backward = cnn_ref_log_softmax_backward,
};
