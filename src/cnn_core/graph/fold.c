/* Constant scaling moves into constant weights: Jacob et al., "Quantization and Training of Neural Networks for Efficient
 * Integer-Arithmetic-Only Inference", 2018, section 3.2 (there for quantization; the identity is the same):
 *
 *     scale (W x + b) + shift  =  (scale W) x + (scale b + shift) */
#include <string.h>

#include "graph/passes.h"

void cnn_constants_free(const cnn_allocator *allocator, cnn_constants *constants)
{
    for (int32_t v = 0; v < constants->capacity; v++) {
        if (constants->made != NULL) cnn_release(allocator, constants->made[v]);
        if (constants->scale != NULL) cnn_release(allocator, constants->scale[v]);
    }
    cnn_release(allocator, constants->made);
    cnn_release(allocator, constants->scale);
    cnn_release(allocator, constants->data);
    *constants = (cnn_constants){0};
}

/* Every step adds two values at most. */
static cnn_status make_room(cnn_graph *graph, const void *const *given, cnn_constants *constants)
{
    const size_t most = (size_t)graph->num_values + 2 * (size_t)graph->num_steps;
    const cnn_allocator *allocator = &graph->allocator;
    cnn_tensor *values = cnn_allocate(allocator, most * sizeof *values);
    if (values == NULL) return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a plan");
    memcpy(values, graph->values, (size_t)graph->num_values * sizeof *values);
    cnn_release(allocator, graph->values);
    graph->values = values;
    graph->values_capacity = constants->capacity = (int32_t)most;
    constants->data = cnn_allocate_zeroed(allocator, most + 1, sizeof *constants->data);
    constants->scale = cnn_allocate_zeroed(allocator, most + 1, sizeof *constants->scale);
    constants->made = cnn_allocate_zeroed(allocator, most + 1, sizeof *constants->made);
    if (constants->data == NULL || constants->scale == NULL || constants->made == NULL)
        return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a plan");
    for (cnn_value v = 0; v < graph->num_values; v++)
        if (graph->values[v].kind == CNN_VALUE_PARAMETER || graph->values[v].kind == CNN_VALUE_STATE)
            constants->data[v] = given[v];
    return CNN_OK;
}

static cnn_value add_parameter(cnn_graph *graph, const cnn_shape *shape)
{
    graph->values[graph->num_values] =
        (cnn_tensor){.kind = CNN_VALUE_PARAMETER, .dtype = graph->dtype, .shape = *shape, .producer = -1};
    return graph->num_values++;
}

/* "conv1.weight" gives "conv1.bias", as layers name theirs. */
static void name_bias(const char *weights, char name[CNN_NAME_BYTES])
{
    static const char ending[] = ".bias";
    const char *const dot = strrchr(weights, '.');
    const size_t stem = dot == NULL ? strlen(weights) : (size_t)(dot - weights);
    if (stem == 0 || stem + sizeof ending > CNN_NAME_BYTES) return;
    memcpy(name, weights, stem);
    memcpy(name + stem, ending, sizeof ending);
}

static double get(cnn_dtype dtype, const void *from, int64_t i)
{
    return dtype == CNN_FLOAT64 ? ((const double *)from)[i] : (double)((const float *)from)[i];
}

static void set(cnn_dtype dtype, void *to, int64_t i, double value)
{
    if (dtype == CNN_FLOAT64)
        ((double *)to)[i] = value;
    else
        ((float *)to)[i] = (float)value;
}

/* The step before, if its weights can take the scaling of step s along. */
static cnn_step *foldable(cnn_graph *graph, const int32_t *uses, const cnn_constants *constants, int32_t s)
{
    const cnn_value v = graph->steps[s].source[0];
    const cnn_tensor *tensor = &graph->values[v];
    if (tensor->kind != CNN_VALUE_RESULT || tensor->output || tensor->producer < 0 || uses[v] != 1) return NULL;
    cnn_step *before = &graph->steps[tensor->producer];
    if (before->node.row->rescale == NULL || constants->data[before->source[1]] == NULL) return NULL;
    const bool biased = before->node.num_sources > 2 && before->node.present[2];
    return biased && constants->data[before->source[2]] == NULL ? NULL : before;
}

static cnn_status fold_step(cnn_graph *graph, const int32_t *uses, cnn_constants *constants, int32_t s, double *scale)
{
    cnn_step *step = &graph->steps[s];
    cnn_step *before = foldable(graph, uses, constants, s);
    if (before == NULL) return CNN_OK;
    void *src[CNN_MAX_SOURCES] = {NULL};
    for (int32_t i = 1; i < step->node.num_sources; i++)
        if (step->source[i] != CNN_NONE) src[i] = (void *)(uintptr_t)constants->data[step->source[i]];
    const cnn_shape channels = {.rank = 1, .dim = {step->node.dst_shape.dim[1]}};
    double *shift = scale + channels.dim[0];
    if (!step->node.row->as_affine(&step->node, src, scale, shift)) return CNN_OK;

    const cnn_value old_weights = before->source[1];
    if (!before->node.row->rescale(&before->node, constants->data[old_weights], scale, NULL)) return CNN_OK;
    const cnn_dtype dtype = graph->dtype;
    const cnn_value weights = add_parameter(graph, &before->node.src_shape[1]), bias = add_parameter(graph, &channels);
    double *new_scale = cnn_allocate(&graph->allocator, cnn_size_mul((size_t)channels.dim[0], sizeof *new_scale));
    void *new_bias = cnn_allocate(&graph->allocator, cnn_tensor_bytes(&channels, dtype));
    constants->scale[weights] = new_scale;
    constants->data[bias] = constants->made[bias] = new_bias;
    if (new_scale == NULL || new_bias == NULL) return cnn_fail(CNN_OUT_OF_MEMORY, "no memory to fold weights");
    constants->data[weights] = constants->data[old_weights];
    const double *old_scale = constants->scale[old_weights];
    for (int64_t c = 0; c < channels.dim[0]; c++) new_scale[c] = old_scale == NULL ? scale[c] : old_scale[c] * scale[c];
    const void *old_bias = before->node.present[2] ? constants->data[before->source[2]] : NULL;
    const char *const weights_name = graph->values[old_weights].name;
    memcpy(graph->values[weights].name, weights_name, CNN_NAME_BYTES);
    if (old_bias == NULL)
        name_bias(weights_name, graph->values[bias].name);
    else
        memcpy(graph->values[bias].name, graph->values[before->source[2]].name, CNN_NAME_BYTES);
    for (int64_t c = 0; c < channels.dim[0]; c++)
        set(dtype, new_bias, c, (old_bias == NULL ? 0.0 : get(dtype, old_bias, c)) * scale[c] + shift[c]);

    before->source[1] = weights;
    before->source[2] = bias;
    if (before->node.num_sources < 3) before->node.num_sources = 3;
    before->node.present[2] = true;
    before->node.src_shape[2] = channels;
    before->node.src_dtype[2] = dtype;
    before->node.row_major[2] = true;
    const cnn_value result = step->result;
    const int32_t producer = graph->values[step->source[0]].producer;
    cnn_graph_drop(graph, s);
    graph->values[before->result].producer = -1;
    before->result = result;
    graph->values[result].producer = producer;
    return CNN_OK;
}

cnn_status cnn_graph_fold(cnn_graph *graph, const void *const *given, cnn_constants *constants)
{
    CNN_TRY(make_room(graph, given, constants));
    int64_t most = 1;
    for (int32_t s = 0; s < graph->num_steps; s++) {
        const cnn_shape *shape = &graph->steps[s].node.dst_shape;
        if (shape->rank > 1 && shape->dim[1] > most) most = shape->dim[1];
    }
    int32_t *uses = cnn_graph_uses(graph);
    double *scale = cnn_allocate(&graph->allocator, cnn_size_mul((size_t)most, 2 * sizeof *scale));
    cnn_status status = CNN_OK;
    if (uses == NULL || scale == NULL) status = cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a plan");
    for (int32_t s = 0; status == CNN_OK && s < graph->num_steps; s++)
        if (graph->steps[s].node.row->as_affine != NULL && graph->steps[s].node.dst_shape.rank > 1)
            status = fold_step(graph, uses, constants, s, scale);
    cnn_graph_compact(graph);
    cnn_release(&graph->allocator, scale);
    cnn_release(&graph->allocator, uses);
    return status;
}
