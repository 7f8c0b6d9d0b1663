/* Joins tensors along one axis; the gradient of each is its own part of diff_dst. */
#include "ops/check.h"
#include "ops/nest.h"
#include "ref/ref.h"

static cnn_status infer(cnn_node *node)
{
    const cnn_shape *first = &node->src_shape[0];
    const int32_t asked = node->attributes.axis.axis, axis = asked < 0 ? asked + first->rank : asked;
    char got[CNN_SHAPE_TEXT], text[CNN_SHAPE_TEXT];
    if (axis < 0 || axis >= first->rank)
        return cnn_fail(CNN_INVALID_VALUE, "dim: got %d, expected an axis of the %d that %s has", asked, first->rank,
                        cnn_shape_text(first, text));
    node->attributes.axis.axis = axis;
    node->dst_shape = *first;
    node->dst_shape.dim[axis] = 0;
    for (int32_t i = 0; i < node->num_sources; i++) {
        CNN_TRY(cnn_check_working_type(node, i, "tensors"));
        const cnn_shape *src = &node->src_shape[i];
        bool fits = src->rank == first->rank;
        for (int32_t k = 0; fits && k < src->rank; k++) fits = k == axis || src->dim[k] == first->dim[k];
        if (!fits)
            return cnn_fail(CNN_INVALID_VALUE, "tensors: got shapes %s and %s, expected them to differ in dim %d only",
                            cnn_shape_text(first, text), cnn_shape_text(src, got), axis);
        node->dst_shape.dim[axis] += src->dim[axis];
    }
    return CNN_OK;
}

/* Copies between source i and its part of the destination, which begins at *offset elements and ends at what *offset is
 * set to. */
static void copy_part(const cnn_call *call, int32_t i, bool backward, int64_t *offset)
{
    const cnn_node *node = call->node;
    const cnn_shape *shape = &node->src_shape[i];
    const int32_t axis = node->attributes.axis.axis;
    int64_t stride[2][CNN_MAX_RANK];
    cnn_shape_strides(&node->dst_shape, true, stride[0]);
    cnn_shape_strides(shape, !node->row_major[i], stride[1]);
    const int64_t begin = *offset;
    *offset += shape->dim[axis] * stride[0][axis];
    if (cnn_shape_count(shape) == 0) return;

    if (!backward) {
        const cnn_nest nest = cnn_nest_make(shape, 2, stride);
        cnn_nest_copy(&nest, call->threads, call->src[i], (float *)call->dst + begin);
    } else if (call->diff_src[i] != NULL) {
        int64_t reversed[2][CNN_MAX_RANK];
        for (int32_t k = 0; k < shape->rank; k++) {
            reversed[0][k] = stride[1][k];
            reversed[1][k] = stride[0][k];
        }
        const cnn_nest nest = cnn_nest_make(shape, 2, reversed);
        cnn_nest_copy(&nest, call->threads, (const float *)call->diff_dst + begin, call->diff_src[i]);
    }
}

static cnn_status forward(const cnn_call *call)
{
    int64_t offset = 0;
    for (int32_t i = 0; i < call->node->num_sources; i++) copy_part(call, i, false, &offset);
    return CNN_OK;
}

static cnn_status backward(const cnn_call *call)
{
    int64_t offset = 0;
    for (int32_t i = 0; i < call->node->num_sources; i++) copy_part(call, i, true, &offset);
    return CNN_OK;
}

const cnn_op_row cnn_op_concat = {
    .name = "concat",
    .fields = cnn_fields_axis,
    .min_sources = 1,
    .max_sources = CNN_MAX_SOURCES,
    .infer = infer,
    .forward = forward,
    .backward = backward,
    .reference_forward = cnn_ref_concat_forward,
    .reference_backward = cnn_ref_concat_backward,
};
