/* Dropout: training zeroes each element, or each plane (n, c), with probability p and scales the rest by 1 / (1 - p);
 * evaluation copies. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15
 * (2014). */
#include "ops/dropout.h"

#include <string.h>

#include "ops/elementwise.h"
#include "ref/ref.h"

static cnn_status dropout_infer(cnn_node *node)
{
    const double p = node->attributes.dropout.p;
    if (!(p >= 0 && p <= 1)) return cnn_fail(CNN_INVALID_VALUE, "p: got %g, expected a probability, 0 to 1", p);
    CNN_TRY(cnn_check_elementwise(node));
    if (node->attributes.dropout.per_channel && node->src_shape[0].rank < 2) {
        char text[CNN_SHAPE_TEXT];
        return cnn_fail(CNN_INVALID_VALUE, "x: got shape %s, expected at least 2 dimensions (n, c, ...)",
                        cnn_shape_text(&node->src_shape[0], text));
    }
    node->dst_shape = node->src_shape[0];
    return CNN_OK;
}

static size_t dropout_saved(const cnn_node *node)
{
    (void)node;
    return sizeof(cnn_dropout_saved);
}

static bool by_plane(const cnn_node *node)
{
    return node->attributes.dropout.per_channel && !cnn_dropout_is_identity(node);
}

static size_t dropout_workspace(const cnn_node *node, bool backward, int32_t threads)
{
    (void)backward;
    (void)threads;
    return by_plane(node) ? cnn_float_bytes(node->dst_shape.dim[0] * node->dst_shape.dim[1]) : 0;
}

#define DROPOUT_BLOCK 16384 /* a multiple of CNN_RANDOM_GROUP */

typedef struct dropout_work {
    const cnn_call *call;
    const float *src;
    float *dst;
    int64_t count;
    cnn_dropout_mask mask;
    cnn_channel_space space; /* by plane: how memory lies, */
    const float *factor;     /* and each plane's factor */
    int64_t pixels;          /* elements of a plane */
} dropout_work;

static void copy_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const dropout_work *work = arg;
    const int64_t begin = task * DROPOUT_BLOCK;
    memcpy(work->dst + begin, work->src + begin,
           (size_t)cnn_min_i64(DROPOUT_BLOCK, work->count - begin) * sizeof *work->dst);
}

static void element_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const dropout_work *work = arg;
    const int64_t begin = task * DROPOUT_BLOCK;
    work->call->node->kernels->activation.dropout(begin, cnn_min_i64(DROPOUT_BLOCK, work->count - begin),
                                                  &work->mask.stream, work->mask.threshold, (float)work->mask.scale,
                                                  work->src + begin, work->dst + begin);
}

/* One image. */
static void plane_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const dropout_work *work = arg;
    const int64_t channels = work->space.channels, inner = work->space.inner;
    const float *factor = work->factor + task * channels;
    const float *src = work->src + task * channels * work->pixels;
    float *dst = work->dst + task * channels * work->pixels;
    if (inner > 1) {
        for (int64_t c = 0; c < channels; c++)
            for (int64_t i = 0; i < inner; i++) dst[c * inner + i] = src[c * inner + i] * factor[c];
    } else {
        for (int64_t i = 0; i < work->pixels; i++)
            for (int64_t c = 0; c < channels; c++) dst[i * channels + c] = src[i * channels + c] * factor[c];
    }
}

/* dst = src times the mask */
static void apply(const cnn_call *call, const float *src, float *dst)
{
    const cnn_node *node = call->node;
    dropout_work work = {.call = call, .src = src, .dst = dst, .count = cnn_shape_count(&node->dst_shape)};
    const int64_t blocks = cnn_ceil_div(work.count, DROPOUT_BLOCK);
    const double count = (double)work.count;
    if (cnn_dropout_is_identity(node)) {
        cnn_parallel(cnn_useful_threads(call->threads, 0.2 * count), blocks, copy_task, &work);
        return;
    }
    work.mask = cnn_dropout_mask_of(call);
    if (!by_plane(node)) {
        cnn_parallel(cnn_useful_threads(call->threads, 0.6 * count), blocks, element_task, &work);
        return;
    }
    const int64_t planes = node->dst_shape.dim[0] * node->dst_shape.dim[1];
    work.space = cnn_channel_space_of(&node->dst_shape);
    work.pixels = work.count / planes;
    cnn_dropout_factors(&work.mask, planes, call->workspace);
    work.factor = call->workspace;
    cnn_parallel(cnn_useful_threads(call->threads, 0.2 * count), node->dst_shape.dim[0], plane_task, &work);
}

static cnn_status dropout_forward(const cnn_call *call)
{
    *(cnn_dropout_saved *)call->saved = (cnn_dropout_saved){call->random_seed, call->random_call};
    apply(call, call->src[0], call->dst);
    return CNN_OK;
}

/* The map is linear in src and diagonal: the gradient goes through it unchanged. */
static cnn_status dropout_backward(const cnn_call *call)
{
    if (call->diff_src[0] != NULL) apply(call, call->diff_dst, call->diff_src[0]);
    return CNN_OK;
}

static bool dropout_as_epilogue(const cnn_node *node, cnn_epilogue *epilogue)
{
    *epilogue = (cnn_epilogue){0};
    return cnn_dropout_is_identity(node);
}

const cnn_op_row cnn_op_dropout = {
    .name = "dropout",
    .fields = cnn_fields_dropout,
    .min_sources = 1,
    .max_sources = 1,
    .infer = dropout_infer,
    .saved = dropout_saved,
    .workspace = dropout_workspace,
    .forward = dropout_forward,
    .backward = dropout_backward,
    .as_epilogue = dropout_as_epilogue,
    .reference_forward = cnn_ref_dropout_forward,
    .reference_backward = cnn_ref_dropout_backward,
};
