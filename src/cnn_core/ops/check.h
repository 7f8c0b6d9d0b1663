/* Checks of sources that several operations share. */
#ifndef CNN_OPS_CHECK_H
#define CNN_OPS_CHECK_H

#include "ops/op.h"

/* Fails unless source i, where present, is of the working type; the message calls it `name`. */
static inline cnn_status cnn_check_working_type(const cnn_node *node, int32_t i, const char *name)
{
    if (!node->present[i] || node->src_dtype[i] == node->dtype) return CNN_OK;
    return cnn_fail(CNN_INVALID_TYPE, "%s: got %s, expected %s", name, cnn_dtype_name(node->src_dtype[i]),
                    cnn_dtype_name(node->dtype));
}

/* Fails unless source i is an image batch (n, c, h, w) of the working type, channels-last in memory. */
static inline cnn_status cnn_check_image(const cnn_node *node, int32_t i, const char *name)
{
    CNN_TRY(cnn_check_working_type(node, i, name));
    CNN_TRY(cnn_check_rank(node, i, name, 4));
    if (node->row_major[i])
        return cnn_fail(CNN_UNSUPPORTED, "%s: got a parameter or state, expected an activation (channels-last)", name);
    return CNN_OK;
}

#endif
