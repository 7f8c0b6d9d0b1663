/* a + alpha b, a b and alpha a + beta, with NumPy's broadcasting. The gradient of a source that was repeated is the sum
 * over the axes along which it was. */
#include "ops/check.h"
#include "ops/nest.h"
#include "ops/reduce.h"
#include "ref/ref.h"

static cnn_status infer_binary(cnn_node *node)
{
    CNN_TRY(cnn_check_working_type(node, 0, "x"));
    CNN_TRY(cnn_check_working_type(node, 1, "other"));
    return cnn_broadcast_shape(&node->src_shape[0], &node->src_shape[1], "other", &node->dst_shape);
}

/* ---- dst = a + alpha b, dst = a b --------------------------------------------------------------------------------- */

/* Operands 0, 1, 2 of the nest are dst, a, b. */
typedef struct binary_job {
    const cnn_kernels *kernels;
    const cnn_nest *nest;
    const float *a, *b;
    float alpha;
    float *dst;
} binary_job;

/* True where the kernels take these rows: dst dense, the sources' elements adjacent or one for all. */
static bool suits_kernels(const cnn_nest *nest, int64_t rows, int64_t n)
{
    const int64_t a = cnn_nest_step(nest, 1), b = cnn_nest_step(nest, 2);
    const bool dense = cnn_nest_step(nest, 0) == 1 && (rows == 1 || cnn_nest_pitch(nest, 0) == n);
    return dense && (a == 0 || a == 1) && (b == 0 || b == 1) && a + b > 0;
}

static cnn_rows rows_of(const binary_job *job, int32_t operand, const float *data, const int64_t *offset)
{
    return (cnn_rows){data + offset[operand], cnn_nest_pitch(job->nest, operand), cnn_nest_step(job->nest, operand)};
}

static void add_block(void *arg, int64_t task, const int64_t *offset, int64_t rows, int64_t n)
{
    (void)task;
    const binary_job *job = arg;
    const cnn_rows a = rows_of(job, 1, job->a, offset), b = rows_of(job, 2, job->b, offset);
    float *dst = job->dst + offset[0];
    if (suits_kernels(job->nest, rows, n)) {
        job->kernels->elementwise.add(rows, n, a, b, job->alpha, dst);
        return;
    }
    const int64_t pitch = cnn_nest_pitch(job->nest, 0), step = cnn_nest_step(job->nest, 0);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < n; i++)
            dst[row * pitch + i * step] =
                a.data[row * a.pitch + i * a.step] + job->alpha * b.data[row * b.pitch + i * b.step];
}

static void multiply_block(void *arg, int64_t task, const int64_t *offset, int64_t rows, int64_t n)
{
    (void)task;
    const binary_job *job = arg;
    const cnn_rows a = rows_of(job, 1, job->a, offset), b = rows_of(job, 2, job->b, offset);
    float *dst = job->dst + offset[0];
    if (suits_kernels(job->nest, rows, n)) {
        job->kernels->elementwise.multiply(rows, n, a, b, dst);
        return;
    }
    const int64_t pitch = cnn_nest_pitch(job->nest, 0), step = cnn_nest_step(job->nest, 0);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < n; i++)
            dst[row * pitch + i * step] = a.data[row * a.pitch + i * a.step] * b.data[row * b.pitch + i * b.step];
}

static void forward_binary(const cnn_call *call, double alpha, cnn_nest_fn *fn)
{
    const cnn_node *node = call->node;
    int64_t stride[3][CNN_MAX_RANK];
    cnn_shape_strides(&node->dst_shape, true, stride[0]);
    cnn_source_strides(node, 0, &node->dst_shape, stride[1]);
    cnn_source_strides(node, 1, &node->dst_shape, stride[2]);
    const cnn_nest nest = cnn_nest_make(&node->dst_shape, 3, stride);
    binary_job job = {node->kernels, &nest, call->src[0], call->src[1], (float)alpha, call->dst};
    cnn_nest_run(&nest, call->threads, 0.3, fn, &job);
}

/* ---- dst = alpha src + beta --------------------------------------------------------------------------------------- */

/* Operands of the nest: dst, src. */
typedef struct affine_job {
    const cnn_kernels *kernels;
    const cnn_nest *nest;
    float alpha, beta;
    const float *src;
    float *dst;
} affine_job;

static void affine_block(void *arg, int64_t task, const int64_t *offset, int64_t rows, int64_t n)
{
    (void)task;
    const affine_job *job = arg;
    const int64_t dst_step = cnn_nest_step(job->nest, 0), src_step = cnn_nest_step(job->nest, 1);
    for (int64_t row = 0; row < rows; row++) {
        float *dst = job->dst + offset[0] + row * cnn_nest_pitch(job->nest, 0);
        const float *src = job->src + offset[1] + row * cnn_nest_pitch(job->nest, 1);
        if (dst_step == 1 && src_step == 1)
            job->kernels->elementwise.affine(n, src, job->alpha, job->beta, dst);
        else
            for (int64_t i = 0; i < n; i++) dst[i * dst_step] = job->alpha * src[i * src_step] + job->beta;
    }
}

static void run_affine(const cnn_call *call, const cnn_nest *nest, double alpha, double beta, const float *src, float *dst)
{
    affine_job job = {call->node->kernels, nest, (float)alpha, (float)beta, src, dst};
    cnn_nest_run(nest, call->threads, 0.3, affine_block, &job);
}

/* ---- diff_src = scale times the sum of diff_dst other over the axes along which the source was repeated ------------ */

/* Operands of the nest: diff_src, diff_dst, other, which is the other source; NULL where that has no part in it. */
typedef struct gradient_job {
    const cnn_nest *nest;
    double scale;
    const float *diff_dst, *other;
    float *diff_src;
} gradient_job;

/* The nest as (outer kept, summed, inner kept), where it is one: what cnn_reduce takes. */
static bool as_middle_sum(const cnn_nest *nest, cnn_reduction_space *space, cnn_factor *diff, cnn_factor *other)
{
    int32_t axis = 0;
    *space = (cnn_reduction_space){1, 1, 1};
    *diff = *other = (cnn_factor){NULL, 0, 0, 0};
    if (nest->stride[0][axis] != 0) {
        if (nest->rank == 1) return false;
        space->outer = nest->size[axis];
        diff->outer = nest->stride[1][axis];
        other->outer = nest->stride[2][axis++];
    }
    if (nest->stride[0][axis] != 0) return false;
    space->length = nest->size[axis];
    diff->length = nest->stride[1][axis];
    other->length = nest->stride[2][axis++];
    if (axis < nest->rank) {
        if (nest->stride[0][axis] != 1) return false;
        space->inner = nest->size[axis];
        diff->inner = nest->stride[1][axis];
        other->inner = nest->stride[2][axis++];
    }
    if (axis < nest->rank) return false;
    /* diff_src is dense and its innermost axis comes last: outer is its only other one. */
    const int64_t step = space->inner > 1 ? other->inner : other->length;
    return step == 0 || step == 1;
}

/* The general case: axes of either kind in any order. Each kept element is summed on its own. */
typedef struct gather_job {
    const gradient_job *gradient;
    cnn_nest kept, summed;
    int64_t elements, terms, elements_per_task;
} gather_job;

static void gather_elements(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const gather_job *job = arg;
    const gradient_job *gradient = job->gradient;
    int64_t flat = task * job->elements_per_task;
    const int64_t end = cnn_min_i64(flat + job->elements_per_task, job->elements);
    cnn_nest_cursor at, term;
    cnn_nest_seek(&job->kept, job->kept.rank, flat, &at);
    for (; flat < end; flat++, cnn_nest_next(&job->kept, job->kept.rank, &at)) {
        double sum = 0.0;
        cnn_nest_seek(&job->summed, job->summed.rank, 0, &term);
        for (int64_t k = 0; k < job->terms; k++, cnn_nest_next(&job->summed, job->summed.rank, &term)) {
            const double diff = (double)gradient->diff_dst[at.offset[1] + term.offset[1]];
            sum += gradient->other == NULL ? diff : diff * (double)gradient->other[at.offset[2] + term.offset[2]];
        }
        gradient->diff_src[at.offset[0]] = (float)(gradient->scale * sum);
    }
}

static void append_axis(cnn_nest *to, const cnn_nest *from, int32_t axis)
{
    to->operands = from->operands;
    to->size[to->rank] = from->size[axis];
    for (int32_t i = 0; i < from->operands; i++) to->stride[i][to->rank] = from->stride[i][axis];
    to->rank++;
}

static void gather_gradient(const gradient_job *gradient, int32_t threads)
{
    gather_job job = {.gradient = gradient, .elements = 1, .terms = 1};
    for (int32_t axis = 0; axis < gradient->nest->rank; axis++) {
        const bool summed = gradient->nest->stride[0][axis] == 0;
        append_axis(summed ? &job.summed : &job.kept, gradient->nest, axis);
        *(summed ? &job.terms : &job.elements) *= gradient->nest->size[axis];
    }
    job.elements_per_task = cnn_max_i64(8192 / job.terms, 1);
    cnn_parallel(cnn_useful_threads(threads, 2.0 * (double)job.elements * (double)job.terms),
                 cnn_ceil_div(job.elements, job.elements_per_task), gather_elements, &job);
}

/* The nest of the gradient of source i, in the order of diff_dst's memory. */
static cnn_nest gradient_nest(const cnn_node *node, int32_t i, bool product)
{
    /* cnn_nest_make orders by operand 0: diff_dst goes there first and changes places with diff_src afterwards. */
    int64_t stride[3][CNN_MAX_RANK] = {{0}};
    cnn_shape_strides(&node->dst_shape, true, stride[0]);
    cnn_source_strides(node, i, &node->dst_shape, stride[1]);
    if (product) cnn_source_strides(node, 1 - i, &node->dst_shape, stride[2]);
    cnn_nest nest = cnn_nest_make(&node->dst_shape, 3, stride);
    for (int32_t axis = 0; axis < nest.rank; axis++) {
        const int64_t diff_dst = nest.stride[0][axis];
        nest.stride[0][axis] = nest.stride[1][axis];
        nest.stride[1][axis] = diff_dst;
    }
    return nest;
}

static void backward_source(const cnn_call *call, int32_t i, bool product, double scale)
{
    const cnn_node *node = call->node;
    const int64_t count = cnn_shape_count(&node->src_shape[i]);
    if (call->diff_src[i] == NULL || count == 0) return;
    const cnn_nest nest = gradient_nest(node, i, product);
    const float *other = product ? call->src[1 - i] : NULL;
    if (count == cnn_shape_count(&node->dst_shape)) { /* nothing was repeated */
        binary_job job = {node->kernels, &nest, call->diff_dst, other, 1.0f, call->diff_src[i]};
        if (product)
            cnn_nest_run(&nest, call->threads, 0.3, multiply_block, &job);
        else
            run_affine(call, &nest, scale, 0.0, call->diff_dst, call->diff_src[i]);
        return;
    }
    cnn_reduction_space space;
    cnn_factor diff, factor;
    if (as_middle_sum(&nest, &space, &diff, &factor)) {
        diff.data = call->diff_dst;
        factor.data = other;
        cnn_reduce(node->kernels, call->threads, space, diff, factor, scale, call->workspace, call->diff_src[i]);
    } else {
        const gradient_job job = {&nest, scale, call->diff_dst, other, call->diff_src[i]};
        gather_gradient(&job, call->threads);
    }
}

static size_t source_workspace(const cnn_node *node, int32_t i, bool product)
{
    const cnn_nest nest = gradient_nest(node, i, product);
    cnn_reduction_space space;
    cnn_factor diff, other;
    return as_middle_sum(&nest, &space, &diff, &other) ? cnn_reduce_workspace(space) : 0;
}

static size_t binary_workspace(const cnn_node *node, bool backward, bool product)
{
    if (!backward) return 0;
    const size_t a = source_workspace(node, 0, product), b = source_workspace(node, 1, product);
    return a > b ? a : b;
}

/* ---- the rows ----------------------------------------------------------------------------------------------------- */

static size_t add_workspace(const cnn_node *node, bool backward, int32_t threads)
{
    (void)threads;
    return binary_workspace(node, backward, false);
}

static cnn_status add_forward(const cnn_call *call)
{
    forward_binary(call, call->node->attributes.affine.alpha, add_block);
    return CNN_OK;
}

static cnn_status add_backward(const cnn_call *call)
{
    backward_source(call, 0, false, 1.0);
    backward_source(call, 1, false, call->node->attributes.affine.alpha);
    return CNN_OK;
}

static bool add_as_epilogue(const cnn_node *node, cnn_epilogue *epilogue)
{
    const cnn_shape *dst = &node->dst_shape;
    *epilogue = (cnn_epilogue){.adds = true};
    return node->attributes.affine.alpha == 1.0 && !node->row_major[0] && !node->row_major[1] &&
           cnn_shape_equal(&node->src_shape[0], dst) && cnn_shape_equal(&node->src_shape[1], dst);
}

const cnn_op_row cnn_op_add = {
    .name = "add",
    .fields = cnn_fields_affine,
    .min_sources = 2,
    .max_sources = 2,
    .infer = infer_binary,
    .workspace = add_workspace,
    .forward = add_forward,
    .backward = add_backward,
    .as_epilogue = add_as_epilogue,
    .reference_forward = cnn_ref_add_forward,
    .reference_backward = cnn_ref_add_backward,
};

static size_t multiply_workspace(const cnn_node *node, bool backward, int32_t threads)
{
    (void)threads;
    return binary_workspace(node, backward, true);
}

static cnn_status multiply_forward(const cnn_call *call)
{
    forward_binary(call, 1.0, multiply_block);
    return CNN_OK;
}

static cnn_status multiply_backward(const cnn_call *call)
{
    backward_source(call, 0, true, 1.0);
    backward_source(call, 1, true, 1.0);
    return CNN_OK;
}

const cnn_op_row cnn_op_multiply = {
    .name = "multiply",
    .min_sources = 2,
    .max_sources = 2,
    .keeps_src = SRC(0) | SRC(1),
    .infer = infer_binary,
    .workspace = multiply_workspace,
    .forward = multiply_forward,
    .backward = multiply_backward,
    .reference_forward = cnn_ref_multiply_forward,
    .reference_backward = cnn_ref_multiply_backward,
};

static cnn_status affine_infer(cnn_node *node)
{
    CNN_TRY(cnn_check_working_type(node, 0, "x"));
    node->dst_shape = node->src_shape[0];
    return CNN_OK;
}

static cnn_status affine_forward(const cnn_call *call)
{
    const cnn_node *node = call->node;
    int64_t stride[2][CNN_MAX_RANK];
    cnn_shape_strides(&node->dst_shape, true, stride[0]);
    cnn_source_strides(node, 0, &node->dst_shape, stride[1]);
    const cnn_nest nest = cnn_nest_make(&node->dst_shape, 2, stride);
    run_affine(call, &nest, node->attributes.affine.alpha, node->attributes.affine.beta, call->src[0], call->dst);
    return CNN_OK;
}

static cnn_status affine_backward(const cnn_call *call)
{
    backward_source(call, 0, false, call->node->attributes.affine.alpha);
    return CNN_OK;
}

const cnn_op_row cnn_op_affine = {
    .name = "affine",
    .fields = cnn_fields_affine,
    .min_sources = 1,
    .max_sources = 1,
    .infer = affine_infer,
    .forward = affine_forward,
    .backward = affine_backward,
    .reference_forward = cnn_ref_affine_forward,
    .reference_backward = cnn_ref_affine_backward,
};
