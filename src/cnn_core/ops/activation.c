/* Activations: dst = f(src), element by element, over the dense memory of any rank. */
#include <math.h>

#include "ops/elementwise.h"
#include "ref/ref.h"

/* What a kind has besides its kernels: the names of its parameters, as users know them (NULL: takes none), and roughly how
 * long an element takes, in nanoseconds of one core. */
typedef struct activation_kind {
    const char *alpha, *beta;
    double cost;
} activation_kind;

static const activation_kind kinds[CNN_ACTIVATION_COUNT] = {
    [CNN_SIGMOID] = {NULL, NULL, 0.4},
    [CNN_TANH] = {NULL, NULL, 0.5},
    [CNN_RELU] = {NULL, NULL, 0.2},
    [CNN_RELU6] = {NULL, NULL, 0.2},
    [CNN_LEAKY_RELU] = {"negative_slope", NULL, 0.2},
    [CNN_SOFTPLUS] = {"beta", "threshold", 1.0},
    [CNN_MISH] = {NULL, NULL, 0.5},
    [CNN_SILU] = {NULL, NULL, 0.5},
    [CNN_GELU] = {NULL, NULL, 0.7},
    [CNN_GELU_TANH] = {NULL, NULL, 0.6},
    [CNN_ELU] = {"alpha", NULL, 0.4},
    [CNN_SELU] = {NULL, NULL, 0.4},
    [CNN_HARDSWISH] = {NULL, NULL, 0.2},
    [CNN_HARDSIGMOID] = {NULL, NULL, 0.2},
};

static cnn_status check_parameter(const char *name, double value)
{
    if (name == NULL || isfinite(value)) return CNN_OK;
    return cnn_fail(CNN_INVALID_VALUE, "%s: got %g, expected a finite number", name, value);
}

static cnn_status activation_infer(cnn_node *node)
{
    const cnn_activation kind = node->attributes.activation.kind;
    const double alpha = node->attributes.activation.alpha, beta = node->attributes.activation.beta;
    if ((int)kind < 0 || kind >= CNN_ACTIVATION_COUNT)
        return cnn_fail(CNN_INVALID_VALUE, "kind: got %d, expected 0 to %d", (int)kind, CNN_ACTIVATION_COUNT - 1);
    CNN_TRY(check_parameter(kinds[kind].alpha, alpha));
    CNN_TRY(check_parameter(kinds[kind].beta, beta));
    if (kind == CNN_SOFTPLUS && !(alpha > 0))
        return cnn_fail(CNN_INVALID_VALUE, "beta: got %g, expected a positive number", alpha);
    CNN_TRY(cnn_check_elementwise(node));
    node->dst_shape = node->src_shape[0];
    /* Derivatives that are polynomials of dst come from it; float64 takes the longer way, which cancels no digits. */
    node->keeps_dst = node->dtype == CNN_FLOAT32 && (kind == CNN_SIGMOID || kind == CNN_TANH);
    if (node->keeps_dst) node->keeps_src = 0;
    return CNN_OK;
}

#define ACTIVATION_BLOCK 16384

typedef struct activation_work {
    int64_t count;
    const float *src, *diff_dst; /* backward: src is what it reads of forward */
    float *dst;                  /* backward: diff_src */
    float alpha, beta;
    bool streams;
    cnn_activation_forward_fn *forward;
    cnn_activation_backward_fn *backward;
} activation_work;

static void activation_forward_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const activation_work *work = arg;
    const int64_t begin = task * ACTIVATION_BLOCK;
    work->forward(cnn_min_i64(ACTIVATION_BLOCK, work->count - begin), work->src + begin, work->dst + begin, work->alpha,
                  work->beta, work->streams);
}

static void activation_backward_task(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const activation_work *work = arg;
    const int64_t begin = task * ACTIVATION_BLOCK;
    work->backward(cnn_min_i64(ACTIVATION_BLOCK, work->count - begin), work->src + begin, work->diff_dst + begin,
                   work->dst + begin, work->alpha, work->beta, work->streams);
}

static activation_work work_of(const cnn_call *call)
{
    const struct cnn_activation_attributes *attributes = &call->node->attributes.activation;
    return (activation_work){.count = cnn_shape_count(&call->node->dst_shape),
                             .alpha = (float)attributes->alpha,
                             .beta = (float)attributes->beta};
}

static void run(const cnn_call *call, cnn_task_fn *task, activation_work *work)
{
    const double cost = kinds[call->node->attributes.activation.kind].cost * (double)work->count;
    cnn_parallel(cnn_useful_threads(call->threads, cost), cnn_ceil_div(work->count, ACTIVATION_BLOCK), task, work);
}

static cnn_status activation_forward(const cnn_call *call)
{
    const struct cnn_activation_kernels *kernels = &call->node->kernels->activation;
    const cnn_activation kind = call->node->attributes.activation.kind;
    activation_work work = work_of(call);
    work.src = call->src[0];
    work.dst = call->dst;
    work.streams = cnn_streams(work.count, work.src, work.dst);
    work.forward = kernels->forward[kind];
    run(call, activation_forward_task, &work);
    return CNN_OK;
}

static cnn_status activation_backward(const cnn_call *call)
{
    if (call->diff_src[0] == NULL) return CNN_OK;
    const struct cnn_activation_kernels *kernels = &call->node->kernels->activation;
    const cnn_activation kind = call->node->attributes.activation.kind;
    activation_work work = work_of(call);
    work.src = call->node->keeps_dst ? call->dst : call->src[0];
    work.diff_dst = call->diff_dst;
    work.dst = call->diff_src[0];
    work.streams = cnn_streams(work.count, work.diff_dst, work.dst);
    work.backward = kernels->backward[kind];
    run(call, activation_backward_task, &work);
    return CNN_OK;
}

static bool activation_as_epilogue(const cnn_node *node, cnn_epilogue *epilogue)
{
    *epilogue = (cnn_epilogue){.activates = true, .activation = node->attributes.activation};
    return true;
}

const cnn_op_row cnn_op_activation = {
    .name = "activation",
    .fields = cnn_fields_activation,
    .min_sources = 1,
    .max_sources = 1,
    .keeps_src = SRC(0),
    .in_place = SRC(0),
    .infer = activation_infer,
    .forward = activation_forward,
    .backward = activation_backward,
    .as_epilogue = activation_as_epilogue,
    .reference_forward = cnn_ref_activation_forward,
    .reference_backward = cnn_ref_activation_backward,
};
