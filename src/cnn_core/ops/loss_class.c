/* Losses over classes: cross-entropy and negative log-likelihood, by PyTorch's formulas.
 *
 * Every position (an image, or a pixel of one) has a row of c scores and a class number. With class weights w, target t and
 * label smoothing e, its cross-entropy is
 *
 *     (1 - e) w[t] (lse - x[t]) + e / c sum_j w[j] (lse - x[j]),    lse = log sum_j exp(x[j])
 *
 * (Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016), or 0 where t is ignore_index. The
 * mean divides by the sum of w[t] over the targets not ignored. All scores enter as x - max, so nothing overflows and large
 * scores cancel before they are rounded. */
#include <math.h>
#include <string.h>

#include "ops/check.h"
#include "ops/loss.h"
#include "ref/ref.h"

#define TASK_ELEMENTS 8192

/* ---- shapes ------------------------------------------------------------------------------------------------------- */

static cnn_status infer(cnn_node *node, const char *scores)
{
    CNN_TRY(cnn_check_working_type(node, 0, scores));
    CNN_TRY(cnn_check_working_type(node, 2, "weight"));
    const cnn_shape *src = &node->src_shape[0];
    char text[CNN_SHAPE_TEXT];
    if (src->rank < 2 || src->rank > 4)
        return cnn_fail(CNN_INVALID_VALUE, "%s: got shape %s, expected (n, c), (n, c, d) or (n, c, h, w)", scores,
                        cnn_shape_text(src, text));
    if (src->dim[1] == 0)
        return cnn_fail(CNN_INVALID_VALUE, "%s: got shape %s, expected at least one class", scores,
                        cnn_shape_text(src, text));
    if (node->src_dtype[1] != CNN_INT64)
        return cnn_fail(CNN_INVALID_TYPE, "targets: got %s, expected int64 class numbers",
                        cnn_dtype_name(node->src_dtype[1]));
    cnn_shape positions = {.rank = src->rank - 1, .dim = {src->dim[0]}};
    for (int32_t i = 2; i < src->rank; i++) positions.dim[i - 1] = src->dim[i];
    CNN_TRY(cnn_check_shape(node, 1, "targets", &positions));
    CNN_TRY(cnn_check_length(node, 2, "weight", src->dim[1]));
    CNN_TRY(cnn_loss_check_reduction(node));
    node->dst_shape = node->attributes.loss.reduction == CNN_REDUCE_NONE ? positions : (cnn_shape){.rank = 0};
    return CNN_OK;
}

static cnn_status infer_cross_entropy(cnn_node *node)
{
    const double smoothing = node->attributes.loss.label_smoothing;
    if (!(smoothing >= 0.0 && smoothing <= 1.0))
        return cnn_fail(CNN_INVALID_VALUE, "label_smoothing: got %g, expected 0 to 1", smoothing);
    return infer(node, "logits");
}

static cnn_status infer_nll(cnn_node *node)
{
    return infer(node, "log_probs");
}

/* ---- rows --------------------------------------------------------------------------------------------------------- */

/* Forward's results for backward: the divisor of the mean, then the max and the exp_sum of each row (cross-entropy). */
typedef struct class_saved {
    double divisor;
} class_saved;

typedef struct row_parts {
    float max, exp_sum;
} row_parts;

/* What one task leaves for the total. */
typedef struct class_partial {
    double loss, weight;
} class_partial;

typedef struct class_job {
    const cnn_kernels *kernels;
    const cnn_call *call;
    bool cross_entropy;
    int64_t rows, c;
    int64_t positions;   /* rows of one image */
    int64_t class_stride; /* 1, or in row-major memory `positions` */
    int64_t rows_per_task;
    const int64_t *targets;
    const float *weights; /* of the classes, or NULL */
    double weight_sum;    /* of all classes */
    double smoothing;
    int64_t ignore_index;
    row_parts *parts;     /* NULL where backward does not come */
    class_partial *partial;
    float *row_scratch;   /* per thread: a row made dense, and its gradient */
    size_t row_bytes;
} class_job;

/* Scores lie in rows of c but in row-major memory of rank 3 and, for parameters, 4. */
static bool rows_are_dense(const cnn_node *node)
{
    const cnn_shape *src = &node->src_shape[0];
    return src->rank == 2 || (src->rank == 4 && !node->row_major[0]);
}

static int64_t count_rows(const cnn_node *node)
{
    return cnn_shape_count(&node->src_shape[1]);
}

static int64_t rows_per_task(const cnn_node *node)
{
    return cnn_max_i64(TASK_ELEMENTS / node->src_shape[0].dim[1], 1);
}

static int64_t count_tasks(const cnn_node *node)
{
    return cnn_ceil_div(count_rows(node), rows_per_task(node));
}

static size_t saved_header(void)
{
    return cnn_size_align(sizeof(class_saved));
}

/* The reference needs none of it. */
static size_t saved_cross_entropy(const cnn_node *node)
{
    if (!node->wanted[0]) return 0;
    return cnn_size_add(saved_header(), cnn_size_mul((size_t)count_rows(node), sizeof(row_parts)));
}

static size_t saved_nll(const cnn_node *node)
{
    return node->wanted[0] ? saved_header() : 0;
}

static size_t scratch_bytes(const cnn_node *node)
{
    return rows_are_dense(node) ? 0 : 2 * cnn_float_bytes(node->src_shape[0].dim[1]);
}

static size_t workspace(const cnn_node *node, bool backward, int32_t threads)
{
    (void)backward;
    const size_t partials = cnn_size_align(cnn_size_mul((size_t)count_tasks(node), sizeof(class_partial)));
    return cnn_size_add(partials, cnn_size_mul((size_t)threads, scratch_bytes(node)));
}

static class_job job_of(const cnn_call *call, bool cross_entropy)
{
    const cnn_node *node = call->node;
    class_job job = {
        .kernels = node->kernels,
        .call = call,
        .cross_entropy = cross_entropy,
        .rows = count_rows(node),
        .c = node->src_shape[0].dim[1],
        .rows_per_task = rows_per_task(node),
        .targets = call->src[1],
        .weights = node->present[2] ? call->src[2] : NULL,
        .smoothing = cross_entropy ? node->attributes.loss.label_smoothing : 0.0,
        .ignore_index = node->attributes.loss.ignore_index,
        .row_bytes = scratch_bytes(node),
    };
    job.positions = node->src_shape[0].dim[0] > 0 ? job.rows / node->src_shape[0].dim[0] : 0;
    job.class_stride = rows_are_dense(node) ? 1 : job.positions;
    if (cross_entropy && call->saved != NULL) job.parts = (row_parts *)((char *)call->saved + saved_header());
    job.weight_sum = (double)job.c;
    if (job.weights != NULL) {
        job.weight_sum = 0.0;
        for (int64_t i = 0; i < job.c; i++) job.weight_sum += (double)job.weights[i];
    }
    char *cursor = call->workspace;
    job.partial = cnn_take(&cursor, (size_t)count_tasks(node) * sizeof *job.partial);
    job.row_scratch = (float *)cursor;
    return job;
}

/* The place of a row's first score. */
static int64_t row_offset(const class_job *job, int64_t row)
{
    if (job->class_stride == 1) return row * job->c;
    return row / job->positions * job->positions * job->c + row % job->positions;
}

static float *scratch_of(const class_job *job, int32_t thread)
{
    return (float *)((char *)job->row_scratch + (size_t)thread * job->row_bytes);
}

/* The row's scores, dense: in place, or gathered into scratch memory. */
static const float *row_scores(const class_job *job, int64_t row, float *scratch)
{
    const float *x = (const float *)job->call->src[0] + row_offset(job, row);
    if (job->class_stride == 1) return x;
    for (int64_t i = 0; i < job->c; i++) scratch[i] = x[i * job->class_stride];
    return scratch;
}

static double target_weight(const class_job *job, int64_t target)
{
    return job->weights == NULL ? 1.0 : (double)job->weights[target];
}

/* ---- forward ------------------------------------------------------------------------------------------------------ */

static double cross_entropy_row(const class_job *job, int64_t row, int64_t target, const float *x)
{
    row_parts parts;
    job->kernels->loss.softmax_parts(job->c, x, &parts.max, &parts.exp_sum);
    if (job->parts != NULL) job->parts[row] = parts;
    const double log_sum = (double)logf(parts.exp_sum);
    const double likelihood = (double)(x[target] - parts.max) - log_sum;
    double loss = -(1.0 - job->smoothing) * target_weight(job, target) * likelihood;
    if (job->smoothing > 0.0) {
        const double gap = (double)job->kernels->loss.weighted_gap(job->c, x, job->weights, parts.max);
        loss += job->smoothing / (double)job->c * (job->weight_sum * log_sum - gap);
    }
    return loss;
}

static void forward_rows(void *arg, int64_t task, int32_t thread)
{
    const class_job *job = arg;
    const bool each = job->call->node->attributes.loss.reduction == CNN_REDUCE_NONE;
    const int64_t begin = task * job->rows_per_task, end = cnn_min_i64(begin + job->rows_per_task, job->rows);
    class_partial partial = {0.0, 0.0};
    for (int64_t row = begin; row < end; row++) {
        const int64_t target = job->targets[row];
        double loss = 0.0;
        if (target != job->ignore_index) {
            const double weight = target_weight(job, target);
            if (job->cross_entropy)
                loss = cross_entropy_row(job, row, target, row_scores(job, row, scratch_of(job, thread)));
            else
                loss = -weight * (double)((const float *)job->call->src[0])[row_offset(job, row) +
                                                                            target * job->class_stride];
            partial.loss += loss;
            partial.weight += weight;
        }
        if (each) ((float *)job->call->dst)[row] = (float)loss;
    }
    job->partial[task] = partial;
}

/* Nanoseconds of one core. */
static double work_of(const class_job *job)
{
    return (double)job->rows * (job->cross_entropy ? 30.0 + (double)job->c : 5.0);
}

static cnn_status forward(const cnn_call *call, bool cross_entropy)
{
    class_job job = job_of(call, cross_entropy);
    CNN_TRY(cnn_loss_check_targets(call->node, job.targets)); /* all, before any is used as an index */
    const int64_t tasks = count_tasks(call->node);
    cnn_parallel(cnn_useful_threads(call->threads, work_of(&job)), tasks, forward_rows, &job);
    class_partial total = {0.0, 0.0};
    for (int64_t task = 0; task < tasks; task++) {
        total.loss += job.partial[task].loss;
        total.weight += job.partial[task].weight;
    }
    if (call->saved != NULL) *(class_saved *)call->saved = (class_saved){.divisor = total.weight};
    const cnn_reduction reduction = call->node->attributes.loss.reduction;
    if (reduction == CNN_REDUCE_NONE) return CNN_OK;
    /* No targets at all: 0. All of them ignored: 0 / 0, as in PyTorch. */
    if (reduction == CNN_REDUCE_MEAN && job.rows > 0) total.loss /= total.weight;
    *(float *)call->dst = (float)total.loss;
    return CNN_OK;
}

/* ---- backward ----------------------------------------------------------------------------------------------------- */

/* The gradient of the row's loss by its scores, times g: p q - w[t] (1 - e) at t - w[j] e / c, with p the softmax and q the
 * sum of what is subtracted. */
static void cross_entropy_row_backward(const class_job *job, int64_t row, int64_t target, double g, const float *x,
                                       float *dx)
{
    const row_parts parts = job->parts[row];
    const double at_target = g * (1.0 - job->smoothing) * target_weight(job, target);
    const double at_each = g * job->smoothing / (double)job->c;
    const double all = at_target + at_each * job->weight_sum;
    job->kernels->loss.softmax_gradient(job->c, x, parts.max, (float)(all / (double)parts.exp_sum), (float)at_each,
                                        job->weights, dx);
    dx[target] -= (float)at_target;
}

static void backward_rows(void *arg, int64_t task, int32_t thread)
{
    const class_job *job = arg;
    const cnn_call *call = job->call;
    const cnn_reduction reduction = call->node->attributes.loss.reduction;
    const float *diff_dst = call->diff_dst;
    const double divisor = reduction == CNN_REDUCE_MEAN ? ((const class_saved *)call->saved)->divisor : 1.0;
    const int64_t begin = task * job->rows_per_task, end = cnn_min_i64(begin + job->rows_per_task, job->rows);
    float *scratch = scratch_of(job, thread);
    for (int64_t row = begin; row < end; row++) {
        const int64_t target = job->targets[row];
        float *out = (float *)call->diff_src[0] + row_offset(job, row);
        float *dx = job->class_stride == 1 ? out : scratch + job->row_bytes / (2 * sizeof(float));
        const double g = (double)diff_dst[reduction == CNN_REDUCE_NONE ? row : 0] / divisor;
        if (target == job->ignore_index || !job->cross_entropy) memset(dx, 0, (size_t)job->c * sizeof *dx);
        if (target != job->ignore_index) {
            if (job->cross_entropy)
                cross_entropy_row_backward(job, row, target, g, row_scores(job, row, scratch), dx);
            else
                dx[target] = (float)(-g * target_weight(job, target));
        }
        if (dx != out)
            for (int64_t i = 0; i < job->c; i++) out[i * job->class_stride] = dx[i];
    }
}

static cnn_status backward(const cnn_call *call, bool cross_entropy)
{
    CNN_TRY(cnn_loss_check_constant(call->node));
    if (call->diff_src[0] == NULL) return CNN_OK;
    class_job job = job_of(call, cross_entropy);
    CNN_TRY(cnn_loss_check_targets(call->node, job.targets)); /* again: the memory is the caller's, who may have changed it */
    cnn_parallel(cnn_useful_threads(call->threads, work_of(&job)), count_tasks(call->node), backward_rows, &job);
    return CNN_OK;
}

/* ---- the rows of the table ---------------------------------------------------------------------------------------- */

static cnn_status cross_entropy_forward(const cnn_call *call)
{
    return forward(call, true);
}

static cnn_status cross_entropy_backward(const cnn_call *call)
{
    return backward(call, true);
}

const cnn_op_row cnn_op_cross_entropy = {
    .name = "cross_entropy",
    .fields = cnn_fields_loss,
    .min_sources = 2,
    .max_sources = 3,
    .optional = SRC(2),
    .keeps_src = SRC(0) | SRC(1) | SRC(2),
    .integers = SRC(1),
    .infer = infer_cross_entropy,
    .saved = saved_cross_entropy,
    .workspace = workspace,
    .forward = cross_entropy_forward,
    .backward = cross_entropy_backward,
    .reference_forward = cnn_ref_cross_entropy_forward,
    .reference_backward = cnn_ref_cross_entropy_backward,
};

static cnn_status nll_forward(const cnn_call *call)
{
    return forward(call, false);
}

static cnn_status nll_backward(const cnn_call *call)
{
    return backward(call, false);
}

const cnn_op_row cnn_op_nll = {
    .name = "nll",
    .fields = cnn_fields_loss,
    .min_sources = 2,
    .max_sources = 3,
    .optional = SRC(2),
    .keeps_src = SRC(1) | SRC(2),
    .integers = SRC(1),
    .infer = infer_nll,
    .saved = saved_nll,
    .workspace = workspace,
    .forward = nll_forward,
    .backward = nll_backward,
    .reference_forward = cnn_ref_nll_forward,
    .reference_backward = cnn_ref_nll_backward,
};
