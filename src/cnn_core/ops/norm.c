#include "ops/norm.h"

#include <math.h>

cnn_status cnn_norm_check(const cnn_node *node, int32_t min_rank, int32_t max_rank)
{
    const cnn_shape *src = &node->src_shape[NORM_SRC];
    char text[CNN_SHAPE_TEXT];
    CNN_TRY(cnn_check_working_type(node, NORM_SRC, "x"));
    if (src->rank < min_rank || src->rank > max_rank)
        return cnn_fail(CNN_INVALID_VALUE, "x: got shape %s, expected %d to %d dimensions", cnn_shape_text(src, text),
                        min_rank, max_rank);
    if (src->rank == 4 && node->row_major[NORM_SRC])
        return cnn_fail(CNN_UNSUPPORTED, "x: got a parameter or state, expected an activation (channels-last)");
    const double eps = node->attributes.norm.eps;
    if (!(eps >= 0.0 && isfinite(eps)))
        return cnn_fail(CNN_INVALID_VALUE, "eps: got %g, expected a finite number that is not negative", eps);
    return CNN_OK;
}

int64_t cnn_norm_channels(const cnn_node *node)
{
    return node->src_shape[NORM_SRC].dim[1];
}

int64_t cnn_norm_per_channel(const cnn_node *node)
{
    const cnn_shape *src = &node->src_shape[NORM_SRC];
    int64_t count = src->dim[0];
    for (int32_t i = 2; i < src->rank; i++) count *= src->dim[i];
    return count;
}

cnn_status cnn_norm_check_channels(const cnn_node *node, const char *num_channels)
{
    static const char *const names[] = {"x", "weight", "bias", "running_mean", "running_var"};
    const int64_t channels = cnn_norm_channels(node);
    bool first = true;
    for (int32_t i = NORM_WEIGHTS; i <= NORM_RUNNING_VAR; i++) {
        if (!node->present[i]) continue;
        const cnn_shape *shape = &node->src_shape[i];
        char text[CNN_SHAPE_TEXT];
        CNN_TRY(cnn_check_working_type(node, i, names[i]));
        /* The first of them says what the layer was made for: it is x that does not fit. */
        if (first && shape->rank == 1 && shape->dim[0] != channels)
            return cnn_fail(CNN_INVALID_VALUE, "x: got shape %s with %lld channels, expected %s = %lld",
                            cnn_shape_text(&node->src_shape[NORM_SRC], text), (long long)channels, num_channels,
                            (long long)shape->dim[0]);
        CNN_TRY(cnn_check_length(node, i, names[i], channels));
        first = false;
    }
    return CNN_OK;
}

double cnn_norm_inverse_std(double var, double eps)
{
    return 1.0 / sqrt(var + eps);
}
