#include "ops/fields.h"

#define FIELD(member, field, kind, count) {#field, kind, offsetof(struct cnn_##member##_attributes, field), count, NULL}
#define NAMED(member, field, names) \
    {#field, CNN_FIELD_NAME, offsetof(struct cnn_##member##_attributes, field), 1, names}
#define END {NULL, CNN_FIELD_INT64, 0, 0, NULL}

static const char *const activations[CNN_ACTIVATION_COUNT + 1] = {
    [CNN_SIGMOID] = "sigmoid",     [CNN_TANH] = "tanh",           [CNN_RELU] = "relu",
    [CNN_RELU6] = "relu6",         [CNN_LEAKY_RELU] = "leaky_relu", [CNN_SOFTPLUS] = "softplus",
    [CNN_MISH] = "mish",           [CNN_SILU] = "silu",           [CNN_GELU] = "gelu",
    [CNN_GELU_TANH] = "gelu_tanh", [CNN_ELU] = "elu",             [CNN_SELU] = "selu",
    [CNN_HARDSWISH] = "hardswish", [CNN_HARDSIGMOID] = "hardsigmoid"};

static const char *const reductions[] = {
    [CNN_REDUCE_NONE] = "none", [CNN_REDUCE_MEAN] = "mean", [CNN_REDUCE_SUM] = "sum", NULL};

const cnn_field cnn_fields_conv[] = {FIELD(conv, stride, CNN_FIELD_INT64, 2),
                                     FIELD(conv, dilation, CNN_FIELD_INT64, 2),
                                     FIELD(conv, padding, CNN_FIELD_INT64, 4),
                                     FIELD(conv, output_padding, CNN_FIELD_INT64, 2),
                                     FIELD(conv, groups, CNN_FIELD_INT64, 1),
                                     END};

const cnn_field cnn_fields_norm[] = {FIELD(norm, eps, CNN_FIELD_DOUBLE, 1),
                                     FIELD(norm, momentum, CNN_FIELD_DOUBLE, 1),
                                     FIELD(norm, groups, CNN_FIELD_INT64, 1),
                                     FIELD(norm, axes, CNN_FIELD_INT32, 1),
                                     FIELD(norm, training, CNN_FIELD_BOOLEAN, 1),
                                     END};

const cnn_field cnn_fields_activation[] = {NAMED(activation, kind, activations),
                                           FIELD(activation, alpha, CNN_FIELD_DOUBLE, 1),
                                           FIELD(activation, beta, CNN_FIELD_DOUBLE, 1),
                                           END};

const cnn_field cnn_fields_axis[] = {FIELD(axis, axis, CNN_FIELD_INT32, 1), END};

const cnn_field cnn_fields_pool[] = {FIELD(pool, kernel, CNN_FIELD_INT64, 2),
                                     FIELD(pool, stride, CNN_FIELD_INT64, 2),
                                     FIELD(pool, dilation, CNN_FIELD_INT64, 2),
                                     FIELD(pool, padding, CNN_FIELD_INT64, 2),
                                     FIELD(pool, divisor, CNN_FIELD_INT64, 1),
                                     FIELD(pool, ceil_mode, CNN_FIELD_BOOLEAN, 1),
                                     FIELD(pool, count_include_pad, CNN_FIELD_BOOLEAN, 1),
                                     END};

const cnn_field cnn_fields_resize[] = {FIELD(resize, size, CNN_FIELD_INT64, 2),
                                       FIELD(resize, scale, CNN_FIELD_DOUBLE, 2),
                                       FIELD(resize, align_corners, CNN_FIELD_BOOLEAN, 1),
                                       END};

const cnn_field cnn_fields_dropout[] = {FIELD(dropout, p, CNN_FIELD_DOUBLE, 1),
                                        FIELD(dropout, training, CNN_FIELD_BOOLEAN, 1),
                                        FIELD(dropout, per_channel, CNN_FIELD_BOOLEAN, 1),
                                        END};

const cnn_field cnn_fields_reshape[] = {FIELD(reshape, shape, CNN_FIELD_SHAPE, 1), END};

const cnn_field cnn_fields_affine[] = {FIELD(affine, alpha, CNN_FIELD_DOUBLE, 1),
                                       FIELD(affine, beta, CNN_FIELD_DOUBLE, 1),
                                       END};

const cnn_field cnn_fields_slice[] = {FIELD(slice, start, CNN_FIELD_AXES, 1),
                                      FIELD(slice, step, CNN_FIELD_AXES, 1),
                                      FIELD(slice, size, CNN_FIELD_AXES, 1),
                                      END};

const cnn_field cnn_fields_loss[] = {NAMED(loss, reduction, reductions),
                                     FIELD(loss, label_smoothing, CNN_FIELD_DOUBLE, 1),
                                     FIELD(loss, ignore_index, CNN_FIELD_INT64, 1),
                                     END};
