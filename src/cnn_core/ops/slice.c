/* Slices: along each axis `size` elements from `start` on, `step` apart, either way. What was not taken has gradient 0. */
#include <string.h>

#include "ops/check.h"
#include "ops/nest.h"
#include "ref/ref.h"

static cnn_status infer(cnn_node *node)
{
    CNN_TRY(cnn_check_working_type(node, 0, "x"));
    const cnn_shape *src = &node->src_shape[0];
    char text[CNN_SHAPE_TEXT];
    node->dst_shape.rank = src->rank;
    for (int32_t axis = 0; axis < src->rank; axis++) {
        const int64_t start = node->attributes.slice.start[axis], step = node->attributes.slice.step[axis];
        const int64_t size = node->attributes.slice.size[axis], dim = src->dim[axis];
        bool fits = size == 0 || (size > 0 && size <= dim && start >= 0 && start < dim);
        /* With two elements or more the step is less than the axis is long: the product below cannot overflow. */
        if (fits && size > 1) fits = step > -dim && step < dim && start + (size - 1) * step >= 0 &&
                                     start + (size - 1) * step < dim;
        if (!fits || step == 0)
            return cnn_fail(CNN_INVALID_VALUE,
                            "slice: got %lld elements from %lld in steps of %lld along dim %d of x %s, expected "
                            "a step other than 0 and elements that exist", (long long)size, (long long)start,
                            (long long)step, axis, cnn_shape_text(src, text));
        if (size <= 1) node->attributes.slice.step[axis] = 1; /* never taken; may be any number */
        node->dst_shape.dim[axis] = size;
    }
    return CNN_OK;
}

/* The element strides of the source seen through the slice, and those of dst. Returns the offset of the first element
 * taken. */
static int64_t slice_strides(const cnn_node *node, int64_t whole[CNN_MAX_RANK], int64_t part[CNN_MAX_RANK])
{
    int64_t first = 0;
    cnn_shape_strides(&node->src_shape[0], !node->row_major[0], whole);
    cnn_shape_strides(&node->dst_shape, true, part);
    for (int32_t axis = 0; axis < node->dst_shape.rank; axis++) {
        first += node->attributes.slice.start[axis] * whole[axis];
        whole[axis] *= node->attributes.slice.step[axis];
    }
    return first;
}

static cnn_status forward(const cnn_call *call)
{
    int64_t stride[2][CNN_MAX_RANK];
    const int64_t first = slice_strides(call->node, stride[1], stride[0]);
    const cnn_nest nest = cnn_nest_make(&call->node->dst_shape, 2, stride);
    cnn_nest_copy(&nest, call->threads, (const float *)call->src[0] + first, call->dst);
    return CNN_OK;
}

static cnn_status backward(const cnn_call *call)
{
    if (call->diff_src[0] == NULL) return CNN_OK;
    int64_t stride[2][CNN_MAX_RANK];
    const int64_t first = slice_strides(call->node, stride[0], stride[1]);
    const cnn_nest nest = cnn_nest_make(&call->node->dst_shape, 2, stride);
    float *diff_src = call->diff_src[0];
    if (call->add != 0) { /* what was not taken is not touched */
        cnn_nest_add(&nest, call->threads, call->diff_dst, diff_src + first);
        return CNN_OK;
    }
    memset(diff_src, 0, (size_t)cnn_shape_count(&call->node->src_shape[0]) * sizeof *diff_src);
    cnn_nest_copy(&nest, call->threads, call->diff_dst, diff_src + first);
    return CNN_OK;
}

static uint32_t can_add(const cnn_node *node)
{
    (void)node;
    return SRC(0);
}

const cnn_op_row cnn_op_slice = {
    .name = "slice",
    .fields = cnn_fields_slice,
    .min_sources = 1,
    .max_sources = 1,
    .infer = infer,
    .forward = forward,
    .can_add = can_add,
    .backward = backward,
    .reference_forward = cnn_ref_slice_forward,
    .reference_backward = cnn_ref_slice_backward,
};
