/* A network with a bit of everything that plans do: folding, fusing, every way of packing, several inputs and outputs. */
#ifndef CNN_TESTS_SMALL_NET_H
#define CNN_TESTS_SMALL_NET_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cnn_core.h"

enum { NET_CHANNELS = 20, NET_SIZE = 11, NET_PIXELS = NET_CHANNELS * NET_SIZE * NET_SIZE, NET_CLASSES = 7 };
enum { NET_VALUES = 48, NET_NUMBERS = 16000 };

typedef struct small_net {
    cnn_graph *graph;
    cnn_status status; /* of its making */
    const void *data[NET_VALUES];
    double numbers[NET_NUMBERS]; /* of parameters and states, in the graph's type */
    size_t used;                 /* of them */
    int64_t batches;
} small_net;

static inline double net_number(int64_t i) { return (double)((i * 7919) % 201 - 100) / 100.0; }

static inline cnn_value net_constant(small_net *net, cnn_dtype dtype, bool state, const char *name, cnn_shape shape,
                                     double scale, double shift)
{
    cnn_value value = CNN_NONE;
    size_t count = 1;
    for (int32_t i = 0; i < shape.rank; i++) count *= (size_t)shape.dim[i];
    double *const to = net->numbers + net->used;
    if (net->status != CNN_OK || net->used + count > NET_NUMBERS) return CNN_NONE;
    for (size_t i = 0; i < count; i++) {
        const double number = shift + scale * net_number((int64_t)(net->used + i));
        if (dtype == CNN_FLOAT64)
            to[i] = number;
        else
            ((float *)(void *)to)[i] = (float)number;
    }
    net->used += count;
    net->status = state ? cnn_graph_state(net->graph, dtype, &shape, &value) : cnn_graph_parameter(net->graph, &shape, &value);
    if (net->status == CNN_OK) net->status = cnn_graph_name(net->graph, value, name);
    if (net->status != CNN_OK) return CNN_NONE;
    net->data[value] = to;
    return value;
}

static inline cnn_value net_apply(small_net *net, cnn_op op, cnn_attributes attributes, int32_t count,
                                  const cnn_value *sources)
{
    cnn_value value = CNN_NONE;
    if (net->status == CNN_OK) net->status = cnn_graph_apply(net->graph, op, &attributes, count, sources, &value);
    return value;
}

static inline cnn_value net_conv(small_net *net, cnn_dtype dtype, cnn_value x, const char *name, int64_t channels, int64_t k,
                                 int64_t groups, bool turned)
{
    const int64_t pad = k / 2;
    const cnn_attributes same = {
        .conv = {.stride = {1, 1}, .dilation = {1, 1}, .padding = {pad, pad, pad, pad}, .groups = groups}};
    const cnn_shape shape = {.rank = 4, .dim = {channels, channels / groups, k, k}};
    const cnn_value sources[] = {x, net_constant(net, dtype, false, name, shape, 0.1, 0.0)};
    return net_apply(net, turned ? CNN_OP_CONV_TRANSPOSE2D : CNN_OP_CONV2D, same, 2, sources);
}

static inline cnn_value net_relu(small_net *net, cnn_value x)
{
    return net_apply(net, CNN_OP_ACTIVATION, (cnn_attributes){.activation = {.kind = CNN_RELU}}, 1, &x);
}

/* Inputs "image" (1, c, h, w) and "bias" (classes); outputs "scores" (1, classes) and "features" (1, 2c, h, w). status says
 * how it went; the net is NULL if there was no memory for itself. */
static inline small_net *net_create(cnn_dtype dtype, const cnn_allocator *allocator)
{
    small_net *net = calloc(1, sizeof *net);
    if (net == NULL) return NULL;
    const cnn_shape image = {.rank = 4, .dim = {1, NET_CHANNELS, NET_SIZE, NET_SIZE}};
    const cnn_shape row = {.rank = 1, .dim = {NET_CHANNELS}}, classes = {.rank = 2, .dim = {1, NET_CLASSES}};
    const cnn_shape head = {.rank = 2, .dim = {NET_CLASSES, 2 * NET_CHANNELS}}, scalar = {.rank = 0};
    cnn_value x = CNN_NONE, bias = CNN_NONE, batches = CNN_NONE;
    net->status = cnn_graph_create_with(dtype, allocator, &net->graph);
    if (net->status == CNN_OK) net->status = cnn_graph_input(net->graph, dtype, &image, &x);
    if (net->status == CNN_OK) net->status = cnn_graph_name(net->graph, x, "image");
    if (net->status == CNN_OK) net->status = cnn_graph_input(net->graph, dtype, &classes, &bias);
    if (net->status == CNN_OK) net->status = cnn_graph_name(net->graph, bias, "bias");
    if (net->status == CNN_OK) net->status = cnn_graph_describe(net->graph, "a \"small\" net\n\\ \xe2\x82\xac");
    if (net->status == CNN_OK) net->status = cnn_graph_state(net->graph, CNN_INT64, &scalar, &batches);
    if (net->status != CNN_OK) return net;
    net->data[batches] = &net->batches;

    /* relu(batch_norm(conv(x)) + x), by Winograd: folded, fused, packed, and kept beside. */
    cnn_value y = net_conv(net, dtype, x, "conv.weight", NET_CHANNELS, 3, 1, false);
    const cnn_attributes statistics = {.norm = {.eps = 1e-5, .momentum = 0.1}}, plus = {.affine = {.alpha = 1.0}};
    const cnn_value norm[] = {y,
                              net_constant(net, dtype, false, "bn.weight", row, 0.5, 1.0),
                              net_constant(net, dtype, false, "bn.bias", row, 1.0, 0.0),
                              net_constant(net, dtype, true, "bn.mean", row, 1.0, 0.0),
                              net_constant(net, dtype, true, "bn.var", row, 1.0, 1.5),
                              batches};
    y = net_apply(net, CNN_OP_BATCH_NORM, statistics, 6, norm);
    y = net_relu(net, net_apply(net, CNN_OP_ADD, plus, 2, (cnn_value[]){y, x}));
    (void)net_relu(net, y); /* of which nobody takes anything */

    /* Every other way of packing, and a normalization that cannot be folded. */
    y = net_conv(net, dtype, y, "depthwise", NET_CHANNELS, 3, NET_CHANNELS, false);
    y = net_conv(net, dtype, y, "depthwise.7", NET_CHANNELS, 7, NET_CHANNELS, false);
    y = net_conv(net, dtype, y, "pointwise", NET_CHANNELS, 1, 1, false);
    y = net_conv(net, dtype, y, "grouped", NET_CHANNELS, 3, 4, true);
    const cnn_value again[] = {net_relu(net, y), norm[1], norm[2], norm[3], norm[4], batches};
    y = net_apply(net, CNN_OP_BATCH_NORM, statistics, 6, again);
    const cnn_value features = net_apply(net, CNN_OP_CONCAT, (cnn_attributes){.axis = {1}}, 2, (cnn_value[]){y, x});
    const cnn_value pooled = net_apply(net, CNN_OP_ADAPTIVE_AVG_POOL2D, (cnn_attributes){.resize = {.size = {1, 1}}}, 1, &features);
    const cnn_attributes flat = {.reshape = {.shape = {.rank = 2, .dim = {1, 2 * NET_CHANNELS}}}};
    const cnn_value linear[] = {net_apply(net, CNN_OP_RESHAPE, flat, 1, &pooled),
                                net_constant(net, dtype, false, "head", head, 1.0, 0.0)};
    y = net_apply(net, CNN_OP_LINEAR, plus, 2, linear);
    const cnn_attributes low = {.activation = {.kind = CNN_LEAKY_RELU, .alpha = 0.01}};
    y = net_apply(net, CNN_OP_ACTIVATION, low, 1, (cnn_value[]){net_apply(net, CNN_OP_ADD, plus, 2, (cnn_value[]){bias, y})});
    if (net->status == CNN_OK) net->status = cnn_graph_output(net->graph, y);
    if (net->status == CNN_OK) net->status = cnn_graph_output(net->graph, features);
    if (net->status == CNN_OK) net->status = cnn_graph_name(net->graph, y, "scores");
    if (net->status == CNN_OK) net->status = cnn_graph_name(net->graph, features, "features");
    return net;
}

static inline void net_free(small_net *net)
{
    if (net == NULL) return;
    cnn_graph_free(net->graph);
    free(net);
}

/* The results of a run, as bytes: equal bytes are equal bits. */
typedef struct net_results {
    double scores[NET_CLASSES], features[2 * NET_PIXELS];
} net_results;

/* The inputs' numbers, in either type. */
typedef struct net_inputs {
    double image[NET_PIXELS], bias[NET_CLASSES];
} net_inputs;

static inline void net_fill(cnn_dtype dtype, int64_t seed, net_inputs *inputs)
{
    for (int64_t i = 0; i < NET_PIXELS + NET_CLASSES; i++) {
        double *const to = i < NET_PIXELS ? inputs->image : inputs->bias;
        const int64_t at = i < NET_PIXELS ? i : i - NET_PIXELS;
        if (dtype == CNN_FLOAT64)
            to[at] = net_number(3 * i + seed);
        else
            ((float *)(void *)to)[at] = (float)net_number(3 * i + seed);
    }
}

static inline cnn_status net_bind(cnn_context *context, const cnn_plan *plan, net_inputs *inputs, net_results *results)
{
    memset(results, 0, sizeof *results);
    cnn_status status = cnn_context_bind(context, cnn_plan_find(plan, "image"), inputs->image, NULL);
    if (status == CNN_OK) status = cnn_context_bind(context, cnn_plan_find(plan, "bias"), inputs->bias, NULL);
    if (status == CNN_OK) status = cnn_context_bind(context, cnn_plan_output(plan, 0), results->scores, NULL);
    if (status == CNN_OK) status = cnn_context_bind(context, cnn_plan_output(plan, 1), results->features, NULL);
    return status;
}

/* One run in a context of its own. */
static inline cnn_status net_run(const cnn_plan *plan, cnn_dtype dtype, net_results *results)
{
    static net_inputs inputs;
    cnn_context *context;
    net_fill(dtype, 0, &inputs);
    cnn_status status = cnn_context_create(plan, &context);
    if (status == CNN_OK) status = net_bind(context, plan, &inputs, results);
    if (status == CNN_OK) status = cnn_context_forward(context);
    cnn_context_free(context);
    return status;
}

#endif
