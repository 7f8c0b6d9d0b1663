/* Linear layers: dst (..., out) = src (..., in) weights^T + bias, as a convolution of 1x1 pixels, one a row.
 *
 * Rows are read straight from memory, but for rank-4 activations: these lie channels-last, while `in` is their last
 * logical axis, so that they are turned to row-major in the workspace, and results back.
 *
 * A convolution packs its weights. Where there are fewer rows than outputs, and the weights are not packed yet, forward
 * swaps the two matrices and packs the rows instead: dst^T = weights src^T. */
#include "ops/check.h"
#include "ops/conv.h"
#include "ops/conv_epilogue.h"
#include "ops/epilogue.h"
#include "ops/transpose.h"
#include "ref/ref.h"

static cnn_status infer(cnn_node *node)
{
    const cnn_shape *input = &node->src_shape[0], *weight = &node->src_shape[1];
    char input_text[CNN_SHAPE_TEXT], weight_text[CNN_SHAPE_TEXT];
    CNN_TRY(cnn_check_working_type(node, 0, "x"));
    CNN_TRY(cnn_check_working_type(node, 1, "weight"));
    CNN_TRY(cnn_check_working_type(node, 2, "bias"));
    CNN_TRY(cnn_check_rank(node, 1, "weight", 2));
    if (input->rank < 1) return cnn_fail(CNN_INVALID_VALUE, "x: got shape (), expected at least one dimension");
    if (input->dim[input->rank - 1] != weight->dim[1])
        return cnn_fail(CNN_INVALID_VALUE, "in_features: got %lld in x %s, expected %lld for weight %s",
                        (long long)input->dim[input->rank - 1], cnn_shape_text(input, input_text),
                        (long long)weight->dim[1], cnn_shape_text(weight, weight_text));
    CNN_TRY(cnn_check_length(node, 2, "bias", weight->dim[0]));
    node->dst_shape = *input;
    node->dst_shape.dim[input->rank - 1] = weight->dim[0];
    return CNN_OK;
}

static cnn_conv conv_of(const cnn_node *node)
{
    const cnn_shape *weights = &node->src_shape[1];
    int64_t rows = 1;
    for (int32_t i = 0; i < node->dst_shape.rank - 1; i++) rows *= node->dst_shape.dim[i];
    return (cnn_conv){
        .n = 1,
        .groups = 1,
        .ic = weights->dim[1],
        .ih = 1,
        .iw = rows,
        .oc = weights->dim[0],
        .oh = 1,
        .ow = rows,
        .kh = 1,
        .kw = 1,
        .stride = {1, 1},
        .dilation = {1, 1},
        .weights_stride = {weights->dim[1], 1, 1, 1},
        .packed = node->packed,
    };
}

static double work(const cnn_node *node)
{
    return (double)cnn_shape_count(&node->dst_shape) * (double)node->src_shape[1].dim[1];
}

/* Whether the tensor's memory is not simply its rows of the last axis. */
static bool is_turned(const cnn_shape *shape, bool row_major)
{
    return shape->rank == 4 && !row_major && shape->dim[1] > 1 && shape->dim[2] * shape->dim[3] > 1;
}

/* Bytes of a tensor's rows in the workspace, 0 where they are read and written in place. */
static size_t src_rows_bytes(const cnn_node *node)
{
    const cnn_shape *shape = &node->src_shape[0];
    return is_turned(shape, node->row_major[0]) ? cnn_float_bytes(cnn_shape_count(shape)) : 0;
}

static size_t dst_rows_bytes(const cnn_node *node)
{
    return is_turned(&node->dst_shape, false) ? cnn_float_bytes(cnn_shape_count(&node->dst_shape)) : 0;
}

/* rows (row-major) = image (channels-last) */
static void rows_of_image(int32_t threads, const cnn_shape *shape, const float *image, float *rows)
{
    const cnn_image i = cnn_image_of(shape);
    cnn_transpose(threads, i.n, i.h * i.w, i.c, image, rows);
}

/* image (channels-last) = rows (row-major) */
static void image_of_rows(int32_t threads, const cnn_shape *shape, const float *rows, float *image)
{
    const cnn_image i = cnn_image_of(shape);
    cnn_transpose(threads, i.n, i.c, i.h * i.w, rows, image);
}

/* ---- dst^T = weights src^T --------------------------------------------------------------------------------------- */

static bool is_swapped(const cnn_conv *conv) { return !conv->packed && conv->ow < conv->oc; }

static cnn_conv swap(const cnn_conv *conv)
{
    cnn_conv swapped = *conv;
    swapped.iw = swapped.ow = conv->oc;
    swapped.oc = conv->ow;
    return swapped;
}

static size_t transposed_bytes(const cnn_conv *conv)
{
    return cnn_size_align(cnn_size_mul(cnn_size_mul((size_t)conv->ow, (size_t)conv->oc), sizeof(float)));
}

#define PIECE 64 /* outputs in a task */

typedef struct transpose_job {
    const cnn_conv_call *call;
    const float *transposed;
} transpose_job;

/* dst[r][o] = activation(transposed[o][r] + bias[o] + addend[r][o]) */
static void transpose_piece(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const transpose_job *job = arg;
    const cnn_conv_call *call = job->call;
    const int64_t rows = call->conv->ow, out = call->conv->oc;
    const int64_t first = task * PIECE, count = cnn_min_i64(PIECE, out - first);
    const float *from = job->transposed + first * rows;
    for (int64_t r = 0; r < rows; r++) {
        float *dst = call->out + r * out + first;
        for (int64_t o = 0; o < count; o++) dst[o] = from[o * rows + r];
        if (call->bias != NULL)
            for (int64_t o = 0; o < count; o++) dst[o] += call->bias[first + o];
        if (call->addend != NULL)
            for (int64_t o = 0; o < count; o++) dst[o] += call->addend[r * out + first + o];
        cnn_conv_activate(call, count, dst);
    }
}

static void run_swapped(const cnn_conv_call *call)
{
    const cnn_conv swapped = swap(call->conv);
    cnn_conv_call pass = *call;
    char *cursor = call->workspace;
    float *transposed = cnn_take(&cursor, transposed_bytes(call->conv));
    pass.conv = &swapped;
    pass.x = call->weights;
    pass.weights = call->x;
    pass.bias = pass.addend = NULL;
    pass.activation = NULL;
    pass.out = transposed;
    pass.workspace = cursor;
    cnn_conv_run(&pass);
    transpose_job job = {call, transposed};
    cnn_parallel(cnn_useful_threads(call->threads, 2.0 * (double)call->conv->ow * (double)call->conv->oc),
                 cnn_ceil_div(call->conv->oc, PIECE), transpose_piece, &job);
}

/* ---- passes ------------------------------------------------------------------------------------------------------ */

static size_t forward_workspace(const cnn_conv *conv, const cnn_kernels *kernels, int32_t threads)
{
    if (!is_swapped(conv)) return cnn_conv_workspace(conv, CNN_CONV_FORWARD, kernels, threads);
    const cnn_conv swapped = swap(conv);
    return cnn_size_add(transposed_bytes(conv), cnn_conv_workspace(&swapped, CNN_CONV_FORWARD, kernels, threads));
}

static size_t backward_workspace(const cnn_node *node, const cnn_conv *conv, int32_t threads)
{
    size_t most = node->wanted[2] ? cnn_conv_bias_workspace(conv->ow, conv->oc) : 0;
    for (int i = 0; i < 2; i++) {
        if (!node->wanted[i]) continue;
        const cnn_conv_pass pass = i == 0 ? CNN_CONV_BACKWARD_DATA : CNN_CONV_BACKWARD_WEIGHTS;
        const size_t bytes = cnn_conv_workspace(conv, pass, node->kernels, threads);
        if (bytes > most) most = bytes;
    }
    return most;
}

static size_t workspace(const cnn_node *node, bool back, int32_t threads)
{
    if (cnn_shape_count(&node->dst_shape) == 0) return 0;
    const cnn_conv conv = conv_of(node);
    const size_t passes =
        back ? backward_workspace(node, &conv, threads) : forward_workspace(&conv, node->kernels, threads);
    return cnn_size_add(passes, cnn_size_add(src_rows_bytes(node), dst_rows_bytes(node)));
}

static cnn_status forward(const cnn_call *call)
{
    const cnn_node *node = call->node;
    const cnn_conv conv = conv_of(node);
    char *cursor = call->workspace;
    const size_t src_bytes = src_rows_bytes(node), dst_bytes = dst_rows_bytes(node);
    float *src_rows = cnn_take(&cursor, src_bytes), *dst_rows = cnn_take(&cursor, dst_bytes);
    if (src_bytes > 0) rows_of_image(call->threads, &node->src_shape[0], call->src[0], src_rows);
    cnn_conv_call pass = {
        .pass = CNN_CONV_FORWARD,
        .conv = &conv,
        .kernels = node->kernels,
        .threads = call->threads,
        .workspace = cursor,
        .x = src_bytes > 0 ? src_rows : call->src[0],
        .weights = call->src[1],
        .bias = call->src[2],
        .packed = call->packed,
        .out = dst_bytes > 0 ? dst_rows : call->dst,
    };
    if (node->epilogue.adds) pass.addend = call->src[node->row->max_sources];
    if (node->epilogue.activates) pass.activation = &node->epilogue.activation;
    if (is_swapped(&conv))
        run_swapped(&pass);
    else
        cnn_conv_run(&pass);
    if (dst_bytes > 0) image_of_rows(call->threads, &node->dst_shape, dst_rows, call->dst);
    return CNN_OK;
}

static cnn_status backward(const cnn_call *call)
{
    const cnn_node *node = call->node;
    const cnn_conv conv = conv_of(node);
    const float *diff_dst = cnn_epilogue_backward(call);
    char *cursor = call->workspace;
    const size_t src_bytes = src_rows_bytes(node), dst_bytes = dst_rows_bytes(node);
    float *src_rows = cnn_take(&cursor, src_bytes), *dst_rows = cnn_take(&cursor, dst_bytes);
    if (dst_bytes > 0) rows_of_image(call->threads, &node->dst_shape, diff_dst, dst_rows);
    cnn_conv_call pass = {
        .conv = &conv,
        .kernels = node->kernels,
        .threads = call->threads,
        .workspace = cursor,
        .x = src_bytes > 0 ? src_rows : call->src[0],
        .y = dst_bytes > 0 ? dst_rows : diff_dst,
        .weights = call->src[1],
    };
    if (call->diff_src[1] != NULL) {
        if (src_bytes > 0) rows_of_image(call->threads, &node->src_shape[0], call->src[0], src_rows);
        pass.pass = CNN_CONV_BACKWARD_WEIGHTS;
        pass.out = call->diff_src[1];
        cnn_conv_run(&pass);
    }
    if (call->diff_src[2] != NULL)
        cnn_conv_bias_backward(node->kernels, call->threads, conv.ow, conv.oc, pass.y, cursor, call->diff_src[2]);
    if (call->diff_src[0] != NULL) { /* last: it overwrites the rows of src */
        pass.pass = CNN_CONV_BACKWARD_DATA;
        pass.out = src_bytes > 0 ? src_rows : call->diff_src[0];
        cnn_conv_run(&pass);
        if (src_bytes > 0) image_of_rows(call->threads, &node->src_shape[0], src_rows, call->diff_src[0]);
    }
    return CNN_OK;
}

/* scaled = weights (out, in), each row times its scale. */
static bool rescale(const cnn_node *node, const void *weights, const double *scale, void *scaled)
{
    if (node->dst_shape.rank != 2) return false;
    if (scaled == NULL) return true;
    const cnn_shape *shape = &node->src_shape[1];
    for (int64_t i = 0; i < shape->dim[0] * shape->dim[1]; i++) {
        const double factor = scale[i / shape->dim[1]];
        if (node->dtype == CNN_FLOAT64)
            ((double *)scaled)[i] = ((const double *)weights)[i] * factor;
        else
            ((float *)scaled)[i] = (float)((double)((const float *)weights)[i] * factor);
    }
    return true;
}

/* The addend lies as dst does, and must lie in rows. */
static bool fuses(const cnn_node *node, const cnn_epilogue *epilogue, bool back)
{
    if (back) return !epilogue->adds && cnn_epilogue_by_result(epilogue);
    return !(epilogue->adds && is_turned(&node->dst_shape, false));
}

static size_t packed(const cnn_node *node)
{
    if (cnn_shape_count(&node->dst_shape) == 0) return 0;
    const cnn_conv conv = conv_of(node);
    return cnn_conv_packed(&conv, CNN_CONV_FORWARD, node->kernels);
}

static void pack(const cnn_node *node, void *const *src, void *to)
{
    const cnn_conv conv = conv_of(node);
    const cnn_conv_call call = {
        .pass = CNN_CONV_FORWARD, .conv = &conv, .kernels = node->kernels, .threads = cnn_get_num_threads(), .weights = src[1]};
    cnn_conv_pack(&call, to);
}

static bool reorders(const cnn_node *node)
{
    const cnn_conv conv = conv_of(node);
    return cnn_conv_reorders(&conv, CNN_CONV_FORWARD);
}

const cnn_op_row cnn_op_linear = {
    .name = "linear",
    .min_sources = 2,
    .max_sources = 3,
    .optional = SRC(2),
    .keeps_src = SRC(0) | SRC(1),
    .accumulates = SRC(1) | SRC(2),
    .parameters = SRC(1) | SRC(2),
    .infer = infer,
    .work = work,
    .workspace = workspace,
    .forward = forward,
    .backward = backward,
    .rescale = rescale,
    .fuses = fuses,
    .packs = SRC(1),
    .packed = packed,
    .pack = pack,
    .reorders = reorders,
    .reference_forward = cnn_ref_linear_forward,
    .reference_backward = cnn_ref_linear_backward,
};
