/* Losses of pairs of prediction and target: mean squared error, mean absolute error, binary cross-entropy with logits.
 *
 * The elements are walked in chunks that fit the first-level cache. Operands whose elements do not lie side by side there,
 * as weights that broadcast, are expanded chunk by chunk; so the kernels see dense arrays only. */
#include "ops/check.h"
#include "ops/loss.h"
#include "ops/nest.h"
#include "ref/ref.h"

#define CHUNK 256

/* Operands of the nest: dst, src, targets, weights, positive weights. */
enum { DST, SOURCE, TARGETS, WEIGHTS, POS_WEIGHTS, OPERANDS };

static cnn_status infer_pair(cnn_node *node, const char *name)
{
    CNN_TRY(cnn_check_working_type(node, 0, name));
    CNN_TRY(cnn_check_working_type(node, 1, "targets"));
    CNN_TRY(cnn_check_shape(node, 1, "targets", &node->src_shape[0]));
    CNN_TRY(cnn_loss_check_reduction(node));
    const bool each = node->attributes.loss.reduction == CNN_REDUCE_NONE;
    node->dst_shape = each ? node->src_shape[0] : (cnn_shape){.rank = 0};
    return CNN_OK;
}

static cnn_status infer_distance(cnn_node *node)
{
    return infer_pair(node, "x");
}

/* Weights broadcast to the logits, never the other way round. */
static cnn_status check_weights(const cnn_node *node, int32_t i, const char *name)
{
    if (!node->present[i]) return CNN_OK;
    CNN_TRY(cnn_check_working_type(node, i, name));
    cnn_shape both;
    CNN_TRY(cnn_broadcast_shape(&node->src_shape[0], &node->src_shape[i], name, &both));
    if (cnn_shape_equal(&both, &node->src_shape[0])) return CNN_OK;
    char got[CNN_SHAPE_TEXT], text[CNN_SHAPE_TEXT];
    return cnn_fail(CNN_INVALID_VALUE, "%s: got shape %s, expected one that broadcasts to %s", name,
                    cnn_shape_text(&node->src_shape[i], got), cnn_shape_text(&node->src_shape[0], text));
}

static cnn_status infer_bce(cnn_node *node)
{
    CNN_TRY(infer_pair(node, "logits"));
    CNN_TRY(check_weights(node, 2, "weight"));
    return check_weights(node, 3, "pos_weight");
}

typedef struct pair_job {
    const cnn_kernels *kernels;
    int loss; /* CNN_LOSS_MSE, ... */
    cnn_nest nest;
    const float *src[OPERANDS]; /* by operand; NULL where absent */
    float *dst;                 /* forward, unreduced; or NULL */
    double *partial;            /* forward: one for each task */
    const float *diff_dst;      /* backward: one for each element; or NULL */
    float scale;                /* backward */
    float *diff[OPERANDS];      /* backward: of SOURCE and TARGETS; or NULL */
} pair_job;

static cnn_nest nest_of(const cnn_node *node)
{
    const cnn_shape *space = &node->src_shape[0];
    int64_t stride[OPERANDS][CNN_MAX_RANK] = {{0}};
    cnn_shape_strides(space, true, stride[DST]);
    for (int32_t i = 0; i < OPERANDS - SOURCE; i++)
        if (node->present[i]) cnn_source_strides(node, i, space, stride[SOURCE + i]);
    return cnn_nest_make(space, OPERANDS, stride);
}

static pair_job job_of(const cnn_call *call, int loss)
{
    const cnn_node *node = call->node;
    pair_job job = {.kernels = node->kernels, .loss = loss, .nest = nest_of(node)};
    for (int32_t i = 0; i < OPERANDS - SOURCE; i++)
        if (node->present[i]) job.src[SOURCE + i] = call->src[i];
    return job;
}

/* ---- chunks ------------------------------------------------------------------------------------------------------- */

/* Some rows x n elements of the nest, rows n <= CHUNK. */
typedef struct chunk {
    const cnn_nest *nest;
    int64_t rows, n;
    int64_t offset[OPERANDS];
} chunk;

static bool chunk_is_dense(const chunk *at, int32_t operand)
{
    return (at->n == 1 || cnn_nest_step(at->nest, operand) == 1) &&
           (at->rows == 1 || cnn_nest_pitch(at->nest, operand) == at->n);
}

/* An operand's elements of the chunk, side by side: in place, or copied to `room`. */
static const float *read_chunk(const chunk *at, int32_t operand, const float *data, float room[CHUNK])
{
    if (data == NULL) return NULL;
    const float *first = data + at->offset[operand];
    if (chunk_is_dense(at, operand)) return first;
    const int64_t step = cnn_nest_step(at->nest, operand), pitch = cnn_nest_pitch(at->nest, operand);
    for (int64_t row = 0; row < at->rows; row++)
        for (int64_t i = 0; i < at->n; i++) room[row * at->n + i] = first[row * pitch + i * step];
    return room;
}

/* Where the chunk of an operand is to be written: in place, or to `room` first. */
static float *write_target(const chunk *at, int32_t operand, float *data, float room[CHUNK])
{
    if (data == NULL) return NULL;
    return chunk_is_dense(at, operand) ? data + at->offset[operand] : room;
}

static void write_chunk(const chunk *at, int32_t operand, float *data, const float *written)
{
    if (data == NULL || chunk_is_dense(at, operand)) return;
    float *first = data + at->offset[operand];
    const int64_t step = cnn_nest_step(at->nest, operand), pitch = cnn_nest_pitch(at->nest, operand);
    for (int64_t row = 0; row < at->rows; row++)
        for (int64_t i = 0; i < at->n; i++) first[row * pitch + i * step] = written[row * at->n + i];
}

typedef struct terms_room {
    float src[CHUNK], targets[CHUNK], weights[CHUNK], pos_weights[CHUNK];
} terms_room;

static cnn_loss_terms read_terms(const pair_job *job, const chunk *at, terms_room *room)
{
    return (cnn_loss_terms){
        .src = read_chunk(at, SOURCE, job->src[SOURCE], room->src),
        .targets = read_chunk(at, TARGETS, job->src[TARGETS], room->targets),
        .weights = read_chunk(at, WEIGHTS, job->src[WEIGHTS], room->weights),
        .pos_weights = read_chunk(at, POS_WEIGHTS, job->src[POS_WEIGHTS], room->pos_weights),
    };
}

/* Calls fn for rows x n elements, a chunk at a time: several rows where they are short, else pieces of one. */
static void for_chunks(const pair_job *job, int64_t task, const int64_t *offset, int64_t rows, int64_t n,
                       void (*fn)(const pair_job *job, int64_t task, const chunk *at))
{
    const int64_t cols = cnn_min_i64(n, CHUNK), rows_at_once = CHUNK / cols;
    for (int64_t row = 0; row < rows; row += rows_at_once) {
        for (int64_t col = 0; col < n; col += cols) {
            chunk at = {&job->nest, cnn_min_i64(rows_at_once, rows - row), cnn_min_i64(cols, n - col), {0}};
            for (int32_t i = 0; i < OPERANDS; i++)
                at.offset[i] = offset[i] + row * cnn_nest_pitch(&job->nest, i) + col * cnn_nest_step(&job->nest, i);
            fn(job, task, &at);
        }
    }
}

/* ---- forward ------------------------------------------------------------------------------------------------------ */

static void forward_chunk(const pair_job *job, int64_t task, const chunk *at)
{
    terms_room room;
    float values[CHUNK], sum;
    const int64_t count = at->rows * at->n;
    const cnn_loss_terms terms = read_terms(job, at, &room);
    float *dst = job->dst == NULL ? values : job->dst + at->offset[DST];
    job->kernels->loss.values[job->loss](count, &terms, dst);
    if (job->dst != NULL) return;
    job->kernels->elementwise.sum_each_row(1, count, (cnn_rows){values, 0, 1}, (cnn_rows){NULL, 0, 0}, &sum);
    job->partial[task] += (double)sum;
}

static void forward_block(void *arg, int64_t task, const int64_t *offset, int64_t rows, int64_t n)
{
    for_chunks(arg, task, offset, rows, n, forward_chunk);
}

static size_t workspace(const cnn_node *node, bool backward, int32_t threads)
{
    (void)threads;
    if (backward) return 0;
    const cnn_nest nest = nest_of(node);
    return cnn_size_mul((size_t)cnn_nest_tasks(&nest), sizeof(double));
}

static cnn_status forward(const cnn_call *call, int loss)
{
    const cnn_node *node = call->node;
    pair_job job = job_of(call, loss);
    const cnn_reduction reduction = node->attributes.loss.reduction;
    const int64_t tasks = cnn_nest_tasks(&job.nest);
    job.partial = call->workspace;
    if (reduction == CNN_REDUCE_NONE)
        job.dst = call->dst;
    else
        for (int64_t task = 0; task < tasks; task++) job.partial[task] = 0.0;
    cnn_nest_run(&job.nest, call->threads, loss == CNN_LOSS_BCE ? 2.0 : 0.5, forward_block, &job);
    if (reduction == CNN_REDUCE_NONE) return CNN_OK;

    double total = 0.0;
    for (int64_t task = 0; task < tasks; task++) total += job.partial[task];
    const int64_t count = cnn_shape_count(&node->src_shape[0]);
    if (reduction == CNN_REDUCE_MEAN && count > 0) total /= (double)count;
    *(float *)call->dst = (float)total;
    return CNN_OK;
}

/* ---- backward ----------------------------------------------------------------------------------------------------- */

static void backward_chunk(const pair_job *job, int64_t task, const chunk *at)
{
    (void)task;
    terms_room room;
    float by_src[CHUNK], by_targets[CHUNK];
    const cnn_loss_terms terms = read_terms(job, at, &room);
    const float *diff_dst = job->diff_dst == NULL ? NULL : job->diff_dst + at->offset[DST];
    float *to_src = write_target(at, SOURCE, job->diff[SOURCE], by_src);
    float *to_targets = write_target(at, TARGETS, job->diff[TARGETS], by_targets);
    job->kernels->loss.gradient[job->loss](at->rows * at->n, &terms, diff_dst, job->scale, to_src, to_targets);
    write_chunk(at, SOURCE, job->diff[SOURCE], by_src);
    write_chunk(at, TARGETS, job->diff[TARGETS], by_targets);
}

static void backward_block(void *arg, int64_t task, const int64_t *offset, int64_t rows, int64_t n)
{
    for_chunks(arg, task, offset, rows, n, backward_chunk);
}

static cnn_status backward(const cnn_call *call, int loss)
{
    const cnn_node *node = call->node;
    CNN_TRY(cnn_loss_check_constant(node));
    pair_job job = job_of(call, loss);
    const int64_t count = cnn_shape_count(&node->src_shape[0]);
    const float *diff_dst = call->diff_dst;
    if (node->attributes.loss.reduction == CNN_REDUCE_NONE) {
        job.diff_dst = diff_dst;
        job.scale = 1.0f;
    } else {
        const bool mean = node->attributes.loss.reduction == CNN_REDUCE_MEAN && count > 0;
        job.scale = (float)((double)*diff_dst / (mean ? (double)count : 1.0));
    }
    job.diff[SOURCE] = call->diff_src[0];
    job.diff[TARGETS] = call->diff_src[1];
    cnn_nest_run(&job.nest, call->threads, loss == CNN_LOSS_BCE ? 2.0 : 0.5, backward_block, &job);
    return CNN_OK;
}

/* ---- the rows of the table ---------------------------------------------------------------------------------------- */

static cnn_status mse_forward(const cnn_call *call)
{
    return forward(call, CNN_LOSS_MSE);
}

static cnn_status mse_backward(const cnn_call *call)
{
    return backward(call, CNN_LOSS_MSE);
}

const cnn_op_row cnn_op_mse = {
    .name = "mse",
    .fields = cnn_fields_loss,
    .min_sources = 2,
    .max_sources = 2,
    .keeps_src = SRC(0) | SRC(1),
    .infer = infer_distance,
    .workspace = workspace,
    .forward = mse_forward,
    .backward = mse_backward,
    .reference_forward = cnn_ref_mse_forward,
    .reference_backward = cnn_ref_mse_backward,
};

static cnn_status l1_forward(const cnn_call *call)
{
    return forward(call, CNN_LOSS_L1);
}

static cnn_status l1_backward(const cnn_call *call)
{
    return backward(call, CNN_LOSS_L1);
}

const cnn_op_row cnn_op_l1 = {
    .name = "l1",
    .fields = cnn_fields_loss,
    .min_sources = 2,
    .max_sources = 2,
    .keeps_src = SRC(0) | SRC(1),
    .infer = infer_distance,
    .workspace = workspace,
    .forward = l1_forward,
    .backward = l1_backward,
    .reference_forward = cnn_ref_l1_forward,
    .reference_backward = cnn_ref_l1_backward,
};

static cnn_status bce_forward(const cnn_call *call)
{
    return forward(call, CNN_LOSS_BCE);
}

static cnn_status bce_backward(const cnn_call *call)
{
    return backward(call, CNN_LOSS_BCE);
}

const cnn_op_row cnn_op_bce_with_logits = {
    .name = "bce_with_logits",
    .fields = cnn_fields_loss,
    .min_sources = 2,
    .max_sources = 4,
    .optional = SRC(2) | SRC(3),
    .keeps_src = SRC(0) | SRC(1) | SRC(2) | SRC(3),
    .infer = infer_bce,
    .workspace = workspace,
    .forward = bce_forward,
    .backward = bce_backward,
    .reference_forward = cnn_ref_bce_with_logits_forward,
    .reference_backward = cnn_ref_bce_with_logits_backward,
};
