/* Trains a small network from C alone: which way do the stripes of a noisy 8x8 picture run? */
#include <cnn_core.h>

#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 64, SIZE = 8, FILTERS = 8, CLASSES = 4, STEPS = 200, POOLED = SIZE / 2 };
enum { /* where each parameter lies in one flat buffer */
    CONV_WEIGHTS = 0,
    CONV_BIAS = CONV_WEIGHTS + FILTERS * 3 * 3,
    LINEAR_WEIGHTS = CONV_BIAS + FILTERS,
    LINEAR_BIAS = LINEAR_WEIGHTS + CLASSES * FILTERS * POOLED * POOLED,
    NUM_PARAMETERS = LINEAR_BIAS + CLASSES
};

static void check(cnn_status status)
{
    if (status == CNN_OK) return;
    fprintf(stderr, "train: %s\n", cnn_last_error());
    exit(EXIT_FAILURE);
}

/* Stripes along rows, columns or either diagonal, at a random offset, with noise as strong as they are. */
static void draw_batch(uint64_t step, float *images, int64_t *classes)
{
    check(cnn_fill_normal(CNN_FLOAT32, BATCH * SIZE * SIZE, images, 0.0, 0.5, 1, step));
    for (int n = 0; n < BATCH; n++) {
        const int kind = rand() % CLASSES, offset = rand() % SIZE;
        classes[n] = kind;
        for (int y = 0; y < SIZE; y++) {
            for (int x = 0; x < SIZE; x++) {
                const int along[CLASSES] = {y, x, x + y, x - y + SIZE};
                if ((along[kind] + offset) / 2 % 2) images[(n * SIZE + y) * SIZE + x] += 1.0f;
            }
        }
    }
}

static cnn_value parameter(cnn_graph *graph, cnn_shape shape)
{
    cnn_value value;
    check(cnn_graph_parameter(graph, &shape, &value));
    check(cnn_graph_require_gradient(graph, value));
    return value;
}

static cnn_value apply(cnn_graph *graph, cnn_op op, cnn_attributes attributes, int32_t num_sources, const cnn_value *sources)
{
    cnn_value value;
    check(cnn_graph_apply(graph, op, &attributes, num_sources, sources, &value));
    return value;
}

int main(void)
{
    /* The graph: convolution, ReLU, max pooling, linear layer, loss. */
    cnn_graph *graph;
    check(cnn_graph_create(CNN_FLOAT32, &graph));
    cnn_value images, classes;
    check(cnn_graph_input(graph, CNN_FLOAT32, &(cnn_shape){4, {BATCH, 1, SIZE, SIZE}}, &images));
    check(cnn_graph_input(graph, CNN_INT64, &(cnn_shape){1, {BATCH}}, &classes));
    const cnn_value conv_weights = parameter(graph, (cnn_shape){4, {FILTERS, 1, 3, 3}});
    const cnn_value conv_bias = parameter(graph, (cnn_shape){1, {FILTERS}});
    const cnn_value linear_weights = parameter(graph, (cnn_shape){2, {CLASSES, FILTERS * POOLED * POOLED}});
    const cnn_value linear_bias = parameter(graph, (cnn_shape){1, {CLASSES}});

    const cnn_attributes same = {.conv = {{1, 1}, {1, 1}, {1, 1, 1, 1}, {0, 0}, 1}};
    const cnn_attributes relu = {.activation = {CNN_RELU, 0.0, 0.0}};
    const cnn_attributes halve = {.pool = {.kernel = {2, 2}, .stride = {2, 2}, .dilation = {1, 1}}};
    const cnn_attributes flat = {.reshape = {{2, {BATCH, FILTERS * POOLED * POOLED}}}};
    const cnn_attributes mean = {.loss = {CNN_REDUCE_MEAN, 0.0, -100}};
    cnn_value value = apply(graph, CNN_OP_CONV2D, same, 3, (cnn_value[]){images, conv_weights, conv_bias});
    value = apply(graph, CNN_OP_ACTIVATION, relu, 1, &value);
    value = apply(graph, CNN_OP_MAX_POOL2D, halve, 1, &value);
    value = apply(graph, CNN_OP_RESHAPE, flat, 1, &value);
    const cnn_value scores = apply(graph, CNN_OP_LINEAR, flat, 3, (cnn_value[]){value, linear_weights, linear_bias});
    const cnn_value loss = apply(graph, CNN_OP_CROSS_ENTROPY, mean, 3, (cnn_value[]){scores, classes, CNN_NONE});
    check(cnn_graph_output(graph, loss));
    check(cnn_graph_watch(graph, scores));

    /* The plan, and memory for one run of it. */
    cnn_plan *plan;
    cnn_context *context;
    check(cnn_plan_create(graph, &(cnn_plan_options){.backward = 1}, &plan));
    check(cnn_context_create(plan, &context));
    cnn_graph_free(graph);

    static float parameters[NUM_PARAMETERS], gradients[NUM_PARAMETERS], velocity[NUM_PARAMETERS];
    static float image_data[BATCH * SIZE * SIZE], score_data[BATCH * CLASSES];
    static int64_t class_data[BATCH];
    float loss_data = 0.0f, loss_gradient = 1.0f;
    check(cnn_fill_normal(CNN_FLOAT32, FILTERS * 3 * 3, parameters + CONV_WEIGHTS, 0.0, 0.4, 2, 0));
    check(cnn_fill_normal(CNN_FLOAT32, LINEAR_BIAS - LINEAR_WEIGHTS, parameters + LINEAR_WEIGHTS, 0.0, 0.1, 2, 1));
    check(cnn_context_bind(context, conv_weights, parameters + CONV_WEIGHTS, gradients + CONV_WEIGHTS));
    check(cnn_context_bind(context, conv_bias, parameters + CONV_BIAS, gradients + CONV_BIAS));
    check(cnn_context_bind(context, linear_weights, parameters + LINEAR_WEIGHTS, gradients + LINEAR_WEIGHTS));
    check(cnn_context_bind(context, linear_bias, parameters + LINEAR_BIAS, gradients + LINEAR_BIAS));
    check(cnn_context_bind(context, images, image_data, NULL));
    check(cnn_context_bind(context, classes, class_data, NULL));
    check(cnn_context_bind(context, scores, score_data, NULL));
    check(cnn_context_bind(context, loss, &loss_data, &loss_gradient));

    /* One segment holds all that is trained; one call is a whole step. */
    const cnn_segment all = {parameters, gradients, NUM_PARAMETERS, 0, 1.0, 1e-4};
    cnn_update_group group = {
        .update = {.rule = CNN_SGD, .nesterov = 1, .learning_rate = 0.1, .momentum = 0.9, .gradient_scale = 1.0},
        .num_segments = 1,
        .segments = &all,
        .state = {velocity, NULL, NULL},
    };
    const cnn_training training = {
        .dtype = CNN_FLOAT32, .num_trained = 1, .trained = &all, .num_groups = 1, .groups = &group};
    for (int step = 1; step <= STEPS; step++) {
        draw_batch((uint64_t)step, image_data, class_data);
        group.update.step = step;
        check(cnn_context_train(context, &training, NULL, NULL));
        if (step == 1 || step % 50 == 0) {
            int right = 0;
            for (int n = 0; n < BATCH; n++) {
                const float *score = score_data + n * CLASSES;
                int best = 0;
                for (int c = 1; c < CLASSES; c++) best = score[c] > score[best] ? c : best;
                right += best == class_data[n];
            }
            printf("step %3d: loss %.3f, %d of %d right\n", step, (double)loss_data, right, BATCH);
        }
    }
    cnn_context_free(context);
    cnn_plan_free(plan);
    return EXIT_SUCCESS;
}
