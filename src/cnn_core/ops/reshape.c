/* Reshape: the same elements in logical row-major order. Images lie channels-last, so flattening them is a transpose of
 * each; where that changes nothing in memory, and between other ranks, it is a copy. */
#include "ops/check.h"
#include "ops/nest.h"
#include "ops/transpose.h"
#include "ref/ref.h"

static cnn_status infer(cnn_node *node)
{
    CNN_TRY(cnn_check_working_type(node, 0, "x"));
    const cnn_shape *src = &node->src_shape[0], *asked = &node->attributes.reshape.shape;
    char got[CNN_SHAPE_TEXT], text[CNN_SHAPE_TEXT];
    if (asked->rank < 0 || asked->rank > CNN_MAX_RANK)
        return cnn_fail(CNN_INVALID_VALUE, "shape: got %d dimensions, expected 0 to %d", asked->rank, CNN_MAX_RANK);
    cnn_shape_text(asked, got);
    int32_t open = -1;
    size_t known = 1;
    for (int32_t i = 0; i < asked->rank; i++) {
        if (asked->dim[i] == -1 && open < 0)
            open = i;
        else if (asked->dim[i] < 0)
            return cnn_fail(CNN_INVALID_VALUE, "shape: got %s, expected sizes from 0, and one -1 at most", got);
        else
            known = cnn_size_mul(known, (size_t)asked->dim[i]);
    }
    const size_t count = (size_t)cnn_shape_count(src);
    node->dst_shape = *asked;
    if (open >= 0 && known > 0 && count % known == 0)
        node->dst_shape.dim[open] = (int64_t)(count / known);
    else if (open >= 0 || known != count)
        return cnn_fail(CNN_INVALID_VALUE, "shape: got %s, which the %zu elements of x %s do not fill", got, count,
                        cnn_shape_text(src, text));
    return CNN_OK;
}

/* True where memory order differs from logical order. */
static bool is_permuted(const cnn_shape *shape, bool row_major)
{
    return shape->rank == 4 && !row_major && shape->dim[1] > 1 && shape->dim[2] * shape->dim[3] > 1;
}

/* A transpose out of one channels-last layout and into another meet in row-major order. */
static bool needs_both(const cnn_node *node)
{
    return is_permuted(&node->src_shape[0], node->row_major[0]) && is_permuted(&node->dst_shape, false) &&
           !cnn_shape_equal(&node->src_shape[0], &node->dst_shape);
}

static size_t workspace(const cnn_node *node, bool backward, int32_t threads)
{
    (void)backward;
    (void)threads;
    return needs_both(node) ? cnn_float_bytes(cnn_shape_count(&node->dst_shape)) : 0;
}

static void copy(int32_t threads, int64_t count, const float *src, float *dst)
{
    const cnn_shape flat = {.rank = 1, .dim = {count}};
    int64_t stride[2][CNN_MAX_RANK] = {{1}, {1}};
    const cnn_nest nest = cnn_nest_make(&flat, 2, stride);
    cnn_nest_copy(&nest, threads, src, dst);
}

static void to_row_major(int32_t threads, const cnn_shape *shape, const float *src, float *dst)
{
    const cnn_image image = cnn_image_of(shape);
    cnn_transpose(threads, image.n, image.h * image.w, image.c, src, dst);
}

static void to_channels_last(int32_t threads, const cnn_shape *shape, const float *src, float *dst)
{
    const cnn_image image = cnn_image_of(shape);
    cnn_transpose(threads, image.n, image.c, image.h * image.w, src, dst);
}

/* `scratch` is needed where both layouts are permuted and the shapes differ. */
static void move(int32_t threads, const cnn_shape *from, bool from_permuted, const cnn_shape *to, bool to_permuted,
                 const float *src, float *scratch, float *dst)
{
    if (from_permuted == to_permuted && (!from_permuted || cnn_shape_equal(from, to))) {
        copy(threads, cnn_shape_count(from), src, dst);
    } else if (!to_permuted) {
        to_row_major(threads, from, src, dst);
    } else if (!from_permuted) {
        to_channels_last(threads, to, src, dst);
    } else {
        to_row_major(threads, from, src, scratch);
        to_channels_last(threads, to, scratch, dst);
    }
}

static cnn_status forward(const cnn_call *call)
{
    const cnn_node *node = call->node;
    const cnn_shape *src = &node->src_shape[0], *dst = &node->dst_shape;
    move(call->threads, src, is_permuted(src, node->row_major[0]), dst, is_permuted(dst, false), call->src[0],
         call->workspace, call->dst);
    return CNN_OK;
}

static cnn_status backward(const cnn_call *call)
{
    const cnn_node *node = call->node;
    const cnn_shape *src = &node->src_shape[0], *dst = &node->dst_shape;
    if (call->diff_src[0] == NULL) return CNN_OK;
    move(call->threads, dst, is_permuted(dst, false), src, is_permuted(src, node->row_major[0]), call->diff_dst,
         call->workspace, call->diff_src[0]);
    return CNN_OK;
}

const cnn_op_row cnn_op_reshape = {
    .name = "reshape",
    .fields = cnn_fields_reshape,
    .min_sources = 1,
    .max_sources = 1,
    .infer = infer,
    .workspace = workspace,
    .forward = forward,
    .backward = backward,
    .reference_forward = cnn_ref_reshape_forward,
    .reference_backward = cnn_ref_reshape_backward,
};
