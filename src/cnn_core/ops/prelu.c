/* PReLU: dst = src above zero, slope src below, with one slope for all or one for each channel (axis 1). He et al., "Delving
 * deep into rectifiers" (2015), arXiv:1502.01852.
 *
 * Memory is seen as rows of `period` elements along which the slopes repeat: a few pixels' channels where these are few,
 * so that vectors are full. */
#include <string.h>

#include "ops/elementwise.h"
#include "ref/ref.h"

enum { PRELU_SRC, PRELU_SLOPE };

static cnn_status prelu_infer(cnn_node *node)
{
    const cnn_shape *src = &node->src_shape[PRELU_SRC], *slope = &node->src_shape[PRELU_SLOPE];
    CNN_TRY(cnn_check_elementwise(node));
    CNN_TRY(cnn_check_working_type(node, PRELU_SLOPE, "weight"));
    const int64_t channels = src->rank >= 2 ? src->dim[1] : 1;
    if (slope->rank != 1 || (slope->dim[0] != 1 && slope->dim[0] != channels)) {
        char text[CNN_SHAPE_TEXT];
        return cnn_fail(CNN_INVALID_VALUE, "weight: got shape %s, expected (1,) or one slope for each of the %lld channels of x",
                        cnn_shape_text(slope, text), (long long)channels);
    }
    node->dst_shape = *src;
    return CNN_OK;
}

/* How the work is cut; `period` is 0 where src has no elements. */
typedef struct prelu_plan {
    int64_t count;
    int64_t slopes, inner; /* element i has the slope i / inner % slopes */
    int64_t period, block, blocks;
} prelu_plan;

static prelu_plan plan_of(const cnn_node *node)
{
    prelu_plan plan = {.count = cnn_shape_count(&node->dst_shape)};
    if (plan.count == 0) return plan;
    plan.slopes = node->src_shape[PRELU_SLOPE].dim[0];
    plan.inner = plan.slopes == 1 ? 1 : cnn_channel_space_of(&node->dst_shape).inner;
    const int64_t repeat = plan.slopes * plan.inner;
    plan.period = repeat * cnn_ceil_div(64, repeat);
    /* At least 16 rows, or the partial sums would be a large part of the tensor; at most 256, as they are floats. */
    plan.block = plan.period * cnn_max_i64(16, 16384 / plan.period);
    plan.blocks = cnn_ceil_div(plan.count, plan.block);
    return plan;
}

static size_t prelu_workspace(const cnn_node *node, bool backward, int32_t threads)
{
    (void)threads;
    const prelu_plan plan = plan_of(node);
    size_t bytes = cnn_float_bytes(plan.period);
    if (backward && node->wanted[PRELU_SLOPE]) {
        bytes = cnn_size_add(bytes, cnn_float_bytes(plan.period * plan.blocks));
        bytes = cnn_size_add(bytes, cnn_size_align((size_t)plan.slopes * sizeof(double)));
    }
    return bytes;
}

typedef struct prelu_work {
    const cnn_call *call;
    prelu_plan plan;
    float *pattern;  /* the slope of each element of a row */
    float *partials; /* a row for each block */
} prelu_work;

/* Lays out the workspace and fills the pattern. */
static prelu_work prepare(const cnn_call *call, char **cursor)
{
    prelu_work work = {.call = call, .plan = plan_of(call->node)};
    const float *slope = call->src[PRELU_SLOPE];
    work.pattern = cnn_take(cursor, cnn_float_bytes(work.plan.period));
    for (int64_t i = 0; i < work.plan.period;)
        for (int64_t c = 0; c < work.plan.slopes; c++)
            for (int64_t j = 0; j < work.plan.inner; j++) work.pattern[i++] = slope[c];
    return work;
}

static int64_t block_length(const prelu_plan *plan, int64_t task)
{
    return cnn_min_i64(plan->block, plan->count - task * plan->block);
}

static void prelu_forward_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const prelu_work *work = arg;
    const int64_t begin = task * work->plan.block;
    work->call->node->kernels->activation.prelu_forward(
        block_length(&work->plan, task), work->plan.period, (const float *)work->call->src[PRELU_SRC] + begin,
        work->pattern, (float *)work->call->dst + begin);
}

static void prelu_backward_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const prelu_work *work = arg;
    const cnn_call *call = work->call;
    const struct cnn_activation_kernels *kernels = &call->node->kernels->activation;
    const int64_t begin = task * work->plan.block, n = block_length(&work->plan, task), period = work->plan.period;
    const float *src = (const float *)call->src[PRELU_SRC] + begin;
    const float *diff_dst = (const float *)call->diff_dst + begin;
    if (work->partials != NULL)
        kernels->prelu_backward_slope(n, period, src, diff_dst, work->partials + task * period);
    if (call->diff_src[PRELU_SRC] != NULL)
        kernels->prelu_backward(n, period, src, work->pattern, diff_dst, (float *)call->diff_src[PRELU_SRC] + begin);
}

static void run(prelu_work *work, cnn_task_fn *task, double cost)
{
    const int32_t threads = cnn_useful_threads(work->call->threads, cost * (double)work->plan.count);
    cnn_parallel(threads, work->plan.blocks, task, work);
}

static cnn_status prelu_forward(const cnn_call *call)
{
    char *cursor = call->workspace;
    prelu_work work = prepare(call, &cursor);
    run(&work, prelu_forward_task, 0.2);
    return CNN_OK;
}

/* diff_slope += the blocks' sums, in order and in double. */
static void add_partials(const prelu_work *work, double *sum, float *diff_slope)
{
    const prelu_plan *plan = &work->plan;
    memset(sum, 0, (size_t)plan->slopes * sizeof *sum);
    for (int64_t i = 0; i < plan->period * plan->blocks;)
        for (int64_t c = 0; c < plan->slopes; c++)
            for (int64_t j = 0; j < plan->inner; j++) sum[c] += (double)work->partials[i++];
    for (int64_t c = 0; c < plan->slopes; c++) diff_slope[c] += (float)sum[c];
}

static cnn_status prelu_backward(const cnn_call *call)
{
    char *cursor = call->workspace;
    prelu_work work = prepare(call, &cursor);
    float *diff_slope = call->diff_src[PRELU_SLOPE];
    if (diff_slope != NULL) work.partials = cnn_take(&cursor, cnn_float_bytes(work.plan.period * work.plan.blocks));
    run(&work, prelu_backward_task, 0.4);
    if (diff_slope != NULL) add_partials(&work, cnn_take(&cursor, (size_t)work.plan.slopes * sizeof(double)), diff_slope);
    return CNN_OK;
}

const cnn_op_row cnn_op_prelu = {
    .name = "prelu",
    .min_sources = 2,
    .max_sources = 2,
    .keeps_src = SRC(PRELU_SRC) | SRC(PRELU_SLOPE),
    .accumulates = SRC(PRELU_SLOPE),
    .parameters = SRC(PRELU_SLOPE),
    .infer = prelu_infer,
    .workspace = prelu_workspace,
    .forward = prelu_forward,
    .backward = prelu_backward,
    .reference_forward = cnn_ref_prelu_forward,
    .reference_backward = cnn_ref_prelu_backward,
};
