/* Batch, instance, group and layer normalization: the fast path against the reference, the reference against central
 * differences, the statistics, bits against the thread count, and what is refused. */
#include <stdint.h>
#include <stdlib.h>

#include "base/shape.h"
#include "cnn_core.h"
#include "test.h"

enum { SRC_TENSOR, WEIGHTS, BIAS, RUNNING_MEAN, RUNNING_VAR, NUM_BATCHES, DST, TENSORS };

typedef struct norm_case {
    cnn_op op;
    cnn_shape src;
    int64_t groups;
    int32_t axes;
    bool affine, running, evaluation;
    double momentum; /* 0: 0.1 */
    double eps;      /* 0: 1e-5 */
    bool weights_are_inputs; /* then those of rank 4 lie channels-last */
    bool no_diff_src, no_diff_weights, no_diff_bias;
} norm_case;

/* A one-node graph with its memory. All numbers but the count of batches are of `dtype`. */
typedef struct norm_run {
    cnn_dtype dtype;
    cnn_shape shape[TENSORS];
    int64_t count[TENSORS]; /* 0: not there */
    void *data[TENSORS], *diff[TENSORS];
    cnn_context *context;
    cnn_plan *plan;
} norm_run;

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static uint64_t random_state = 1;

static uint32_t random_bits(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(random_state >> 33);
}

static int64_t random_between(int64_t low, int64_t high)
{
    return low + (int64_t)(random_bits() % (uint32_t)(high - low + 1));
}

/* Of mean 0 and standard deviation 1, nearly normal. */
static double random_number(void)
{
    double sum = 0.0;
    for (int i = 0; i < 4; i++) sum += (double)random_bits() / 2147483648.0 - 0.5;
    return sum * sqrt(3.0);
}

static double get(const norm_run *run, const void *from, int64_t i)
{
    return run->dtype == CNN_FLOAT64 ? ((const double *)from)[i] : (double)((const float *)from)[i];
}

static void set(const norm_run *run, void *to, int64_t i, double value)
{
    if (run->dtype == CNN_FLOAT64)
        ((double *)to)[i] = value;
    else
        ((float *)to)[i] = (float)value;
}

static void fill(const norm_run *run, int tensor, void *to, double value)
{
    for (int64_t i = 0; i < run->count[tensor]; i++) set(run, to, i, value);
}

/* Rounded to float, so that both types see the same numbers. */
static void fill_random(const norm_run *run, int tensor, void *to, double mean, double std)
{
    for (int64_t i = 0; i < run->count[tensor]; i++) set(run, to, i, (double)(float)(mean + std * random_number()));
}

static int64_t num_batches(const norm_run *run)
{
    return *(const int64_t *)run->data[NUM_BATCHES];
}

/* ---- one run ----------------------------------------------------------------------------------------------------- */

static cnn_shape parameter_shape(const norm_case *c)
{
    cnn_shape shape = {.rank = 1, .dim = {c->src.rank > 1 ? c->src.dim[1] : 0}};
    if (c->op != CNN_OP_LAYER_NORM) return shape;
    shape.rank = c->axes;
    for (int32_t i = 0; i < c->axes; i++) shape.dim[i] = c->src.dim[c->src.rank - c->axes + i];
    return shape;
}

static bool is_present(const norm_case *c, int tensor)
{
    if (tensor == WEIGHTS || tensor == BIAS) return c->affine;
    if (tensor >= RUNNING_MEAN && tensor <= NUM_BATCHES) return c->running;
    return true;
}

static cnn_status add_value(const norm_case *c, cnn_graph *graph, cnn_dtype dtype, int tensor, const cnn_shape *shape,
                            cnn_value *value)
{
    if (tensor == SRC_TENSOR || (tensor <= BIAS && c->weights_are_inputs))
        return cnn_graph_input(graph, dtype, shape, value);
    if (tensor <= BIAS) return cnn_graph_parameter(graph, shape, value);
    return cnn_graph_state(graph, tensor == NUM_BATCHES ? CNN_INT64 : dtype, shape, value);
}

static cnn_status build(const norm_case *c, cnn_dtype dtype, bool reference, norm_run *run)
{
    memset(run, 0, sizeof *run);
    run->dtype = dtype;
    run->shape[SRC_TENSOR] = run->shape[DST] = c->src;
    run->shape[WEIGHTS] = run->shape[BIAS] = parameter_shape(c);
    run->shape[RUNNING_MEAN] = run->shape[RUNNING_VAR] = parameter_shape(c);
    run->shape[NUM_BATCHES] = (cnn_shape){.rank = 0};
    const cnn_attributes attributes = {.norm = {.eps = c->eps == 0.0 ? 1e-5 : c->eps,
                                                .momentum = c->momentum == 0.0 ? 0.1 : c->momentum,
                                                .groups = c->groups,
                                                .axes = c->axes,
                                                .training = !c->evaluation}};
    const bool wanted[TENSORS] = {!c->no_diff_src, c->affine && !c->no_diff_weights, c->affine && !c->no_diff_bias};
    const cnn_plan_options options = {.backward = 1, .repeat = 1, .reference = reference};
    const int32_t num_sources = c->op == CNN_OP_BATCH_NORM || c->op == CNN_OP_INSTANCE_NORM ? 6 : 3;
    cnn_graph *graph = NULL;
    cnn_value value[TENSORS];
    cnn_status status = cnn_graph_create(dtype, &graph);
    for (int t = 0; t < TENSORS; t++) {
        value[t] = CNN_NONE;
        if (t == DST || !is_present(c, t)) continue;
        if (status == CNN_OK) status = add_value(c, graph, dtype, t, &run->shape[t], &value[t]);
        if (status == CNN_OK && wanted[t]) status = cnn_graph_require_gradient(graph, value[t]);
    }
    if (status == CNN_OK) status = cnn_graph_apply(graph, c->op, &attributes, num_sources, value, &value[DST]);
    if (status == CNN_OK) status = cnn_graph_output(graph, value[DST]);
    if (status == CNN_OK) status = cnn_plan_create(graph, &options, &run->plan);
    cnn_graph_free(graph);
    if (status == CNN_OK) status = cnn_context_create(run->plan, &run->context);
    for (int t = 0; t < TENSORS && status == CNN_OK; t++) {
        if (value[t] == CNN_NONE) continue;
        run->count[t] = cnn_shape_count(&run->shape[t]);
        run->data[t] = malloc((size_t)run->count[t] * sizeof(double) + 1);
        run->diff[t] = malloc((size_t)run->count[t] * sizeof(double) + 1);
        status = cnn_context_bind(run->context, value[t], run->data[t], run->diff[t]);
    }
    return status;
}

static void release(norm_run *run)
{
    cnn_context_free(run->context);
    cnn_plan_free(run->plan);
    for (int t = 0; t < TENSORS; t++) {
        free(run->data[t]);
        free(run->diff[t]);
    }
}

static cnn_status run_once(norm_run *run)
{
    const cnn_status status = cnn_context_forward(run->context);
    return status == CNN_OK ? cnn_context_backward(run->context) : status;
}

/* Puts numbers drawn from `seed` into everything read, NaN into everything that must be written, and into what gradients
 * of weights are added to `before`. */
static void draw(norm_run *run, uint64_t seed, double mean, double std, double before)
{
    random_state = seed;
    fill_random(run, SRC_TENSOR, run->data[SRC_TENSOR], mean, std);
    fill_random(run, WEIGHTS, run->data[WEIGHTS], 1.0, 0.5);
    fill_random(run, BIAS, run->data[BIAS], 0.0, 1.0);
    fill_random(run, RUNNING_MEAN, run->data[RUNNING_MEAN], mean, std);
    for (int64_t i = 0; i < run->count[RUNNING_VAR]; i++)
        set(run, run->data[RUNNING_VAR], i, (double)(float)(std * std * (1.0 + fabs(random_number()))));
    if (run->count[NUM_BATCHES] != 0) *(int64_t *)run->data[NUM_BATCHES] = 3;
    fill_random(run, DST, run->diff[DST], 0.0, 1.0);
    fill(run, DST, run->data[DST], NAN);
    fill(run, SRC_TENSOR, run->diff[SRC_TENSOR], NAN);
    fill(run, WEIGHTS, run->diff[WEIGHTS], before);
    fill(run, BIAS, run->diff[BIAS], before);
}

/* Runs both passes. A run on NaN first fills the context's own memory with it. */
static cnn_status compute(norm_run *run, uint64_t seed, double mean, double std, double before)
{
    draw(run, seed, mean, std, before);
    fill(run, SRC_TENSOR, run->data[SRC_TENSOR], NAN);
    fill(run, DST, run->diff[DST], NAN);
    cnn_status status = run_once(run);
    draw(run, seed, mean, std, before);
    if (status == CNN_OK) status = run_once(run);
    return status;
}

static const char *name_of(cnn_op op)
{
    static const char *const names[] = {"batch_norm", "instance_norm", "group_norm", "layer_norm"};
    return names[op - CNN_OP_BATCH_NORM];
}

static void print_case(const norm_case *c)
{
    char text[CNN_SHAPE_TEXT];
    fprintf(stderr, "  in %s of %s, groups %d, axes %d, affine %d, running %d, evaluation %d, momentum %g\n",
            name_of(c->op), cnn_shape_text(&c->src, text), (int)c->groups, (int)c->axes, c->affine, c->running,
            c->evaluation, c->momentum);
}

/* ---- against the reference --------------------------------------------------------------------------------------- */

/* Largest difference, as a share of the largest magnitude (and of 1). */
static double difference(const norm_run *a, const void *from_a, const norm_run *b, const void *from_b, int tensor)
{
    double largest = 1.0, worst = 0.0;
    for (int64_t i = 0; i < a->count[tensor]; i++) {
        const double x = get(a, from_a, i), y = get(b, from_b, i), off = fabs(x - y);
        if (fabs(y) > largest) largest = fabs(y);
        if (!(off <= worst)) worst = off; /* NaN stays */
    }
    return worst / largest;
}

static bool agree(const char *what, const norm_run *a, const void *from_a, const norm_run *b, const void *from_b,
                  int tensor, double tolerance)
{
    const double off = difference(a, from_a, b, from_b, tensor);
    if (off <= tolerance) return true;
    fprintf(stderr, "%s: off by %.3g, allowed %.3g\n", what, off, tolerance);
    return false;
}

/* float32 by the kernels against float64 by the reference, on the same numbers. */
static void check_case(const norm_case *c, double mean, double std, double tolerance)
{
    norm_run fast, wanted;
    const bool built = build(c, CNN_FLOAT32, false, &fast) == CNN_OK;
    bool ok = built && build(c, CNN_FLOAT64, true, &wanted) == CNN_OK;
    if (!ok) fprintf(stderr, "%s\n", cnn_last_error());
    REQUIRE(ok);
    ok = compute(&fast, 7, mean, std, 0.5) == CNN_OK && compute(&wanted, 7, mean, std, 0.5) == CNN_OK &&
         agree("dst", &fast, fast.data[DST], &wanted, wanted.data[DST], DST, tolerance);
    if (!c->no_diff_src)
        ok = ok && agree("diff_src", &fast, fast.diff[SRC_TENSOR], &wanted, wanted.diff[SRC_TENSOR], SRC_TENSOR, tolerance);
    ok = ok && agree("diff_weights", &fast, fast.diff[WEIGHTS], &wanted, wanted.diff[WEIGHTS], WEIGHTS, tolerance) &&
         agree("diff_bias", &fast, fast.diff[BIAS], &wanted, wanted.diff[BIAS], BIAS, tolerance) &&
         agree("running_mean", &fast, fast.data[RUNNING_MEAN], &wanted, wanted.data[RUNNING_MEAN], RUNNING_MEAN, 1e-6) &&
         agree("running_var", &fast, fast.data[RUNNING_VAR], &wanted, wanted.data[RUNNING_VAR], RUNNING_VAR, 1e-6);
    if (ok && c->running) ok = num_batches(&fast) == num_batches(&wanted);
    if (!ok) print_case(c);
    CHECK(ok);
    release(&fast);
    release(&wanted);
}

static void agrees_with_the_reference(void)
{
    static const norm_case cases[] = {
        {CNN_OP_BATCH_NORM, {4, {3, 5, 4, 6}}, .affine = true, .running = true},
        {CNN_OP_BATCH_NORM, {4, {3, 5, 4, 6}}, .affine = true, .running = true, .evaluation = true},
        {CNN_OP_BATCH_NORM, {4, {3, 5, 4, 6}}, .affine = true, .evaluation = true},
        {CNN_OP_BATCH_NORM, {4, {3, 5, 4, 6}}, .running = true, .momentum = -1.0},
        {CNN_OP_BATCH_NORM, {4, {3, 5, 4, 6}}, .running = true, .evaluation = true},
        {CNN_OP_BATCH_NORM, {4, {2, 1, 9, 7}}, .affine = true},
        {CNN_OP_BATCH_NORM, {4, {2, 3, 17, 13}}, .affine = true, .running = true},
        {CNN_OP_BATCH_NORM, {4, {2, 70, 1, 1}}, .affine = true, .running = true},
        {CNN_OP_BATCH_NORM, {2, {9, 13}}, .affine = true, .running = true},
        {CNN_OP_BATCH_NORM, {2, {9, 13}}, .affine = true, .running = true, .evaluation = true},
        {CNN_OP_BATCH_NORM, {3, {4, 5, 7}}, .affine = true, .running = true},
        {CNN_OP_BATCH_NORM, {3, {4, 5, 7}}, .affine = true, .running = true, .evaluation = true},
        {CNN_OP_BATCH_NORM, {4, {3, 5, 4, 6}}, .affine = true, .no_diff_src = true},
        {CNN_OP_BATCH_NORM, {4, {3, 5, 4, 6}}, .affine = true, .no_diff_weights = true, .no_diff_bias = true},
        {CNN_OP_BATCH_NORM, {4, {3, 5, 4, 6}}, .affine = true, .running = true, .evaluation = true, .no_diff_bias = true},
        {CNN_OP_BATCH_NORM,
         {4, {3, 5, 4, 6}},
         .affine = true,
         .running = true,
         .evaluation = true,
         .no_diff_weights = true,
         .no_diff_bias = true},
        {CNN_OP_BATCH_NORM, {3, {4, 5, 7}}, .affine = true, .no_diff_src = true},
        {CNN_OP_INSTANCE_NORM, {4, {3, 5, 4, 6}}, .affine = false},
        {CNN_OP_INSTANCE_NORM, {4, {3, 5, 4, 6}}, .affine = true, .running = true},
        {CNN_OP_INSTANCE_NORM, {4, {3, 5, 4, 6}}, .affine = true, .running = true, .momentum = -1.0},
        {CNN_OP_INSTANCE_NORM, {4, {3, 5, 4, 6}}, .affine = true, .running = true, .evaluation = true},
        {CNN_OP_INSTANCE_NORM, {4, {20, 3, 5, 5}}, .affine = true, .evaluation = true},
        {CNN_OP_INSTANCE_NORM, {3, {4, 5, 7}}, .affine = true, .running = true},
        {CNN_OP_GROUP_NORM, {4, {3, 6, 4, 5}}, .groups = 1, .affine = true},
        {CNN_OP_GROUP_NORM, {4, {3, 6, 4, 5}}, .groups = 3, .affine = true},
        {CNN_OP_GROUP_NORM, {4, {3, 6, 4, 5}}, .groups = 6},
        {CNN_OP_GROUP_NORM, {2, {5, 12}}, .groups = 4, .affine = true},
        {CNN_OP_GROUP_NORM, {3, {2, 8, 5}}, .groups = 2, .affine = true},
        {CNN_OP_GROUP_NORM, {4, {3, 6, 4, 5}}, .groups = 2, .affine = true, .no_diff_src = true},
        {CNN_OP_LAYER_NORM, {1, {11}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {2, {70, 19}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {2, {7, 19}}, .axes = 2, .affine = true},
        {CNN_OP_LAYER_NORM, {3, {4, 5, 33}}, .axes = 1},
        {CNN_OP_LAYER_NORM, {3, {4, 5, 6}}, .axes = 2, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {3, 5, 4, 6}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {3, 5, 4, 6}}, .axes = 2, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {3, 5, 4, 6}}, .axes = 3, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {3, 5, 4, 6}}, .axes = 3},
        {CNN_OP_LAYER_NORM, {4, {3, 5, 4, 6}}, .axes = 4, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {3, 5, 4, 6}}, .axes = 4, .affine = true, .weights_are_inputs = true},
        {CNN_OP_LAYER_NORM, {4, {3, 5, 4, 6}}, .axes = 2, .affine = true, .no_diff_src = true},
        {CNN_OP_LAYER_NORM, {4, {3, 5, 4, 6}}, .axes = 2, .affine = true, .no_diff_weights = true, .no_diff_bias = true},
        {CNN_OP_LAYER_NORM, {5, {2, 3, 2, 3, 7}}, .axes = 3, .affine = true},
        {CNN_OP_LAYER_NORM, {6, {2, 1, 2, 2, 3, 3}}, .axes = 2, .affine = true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check_case(&cases[i], 0.3, 1.0, 1e-5); /* what is left of the gradient of two close numbers is rounding */
        check_case(&cases[i], -40.0, 3.0, 1e-5);
    }
}

/* Shapes that take blocks, chunks, segments, more than one of each, and their remainders. */
static void agrees_on_large_shapes(void)
{
    static const norm_case cases[] = {
        {CNN_OP_BATCH_NORM, {4, {2, 3, 210, 211}}, .affine = true, .running = true},
        {CNN_OP_BATCH_NORM, {4, {1, 1, 400, 401}}, .affine = true},
        {CNN_OP_BATCH_NORM, {4, {4, 37, 41, 43}}, .affine = true, .running = true},
        {CNN_OP_BATCH_NORM, {4, {4, 37, 41, 43}}, .affine = true, .running = true, .evaluation = true},
        {CNN_OP_BATCH_NORM, {4, {3, 515, 11, 11}}, .affine = true},
        {CNN_OP_BATCH_NORM, {2, {301, 2049}}, .affine = true},
        {CNN_OP_BATCH_NORM, {3, {5, 70, 517}}, .affine = true, .running = true},
        {CNN_OP_INSTANCE_NORM, {4, {3, 19, 91, 92}}, .affine = true, .running = true},
        {CNN_OP_INSTANCE_NORM, {4, {130, 5, 7, 9}}, .affine = true, .running = true},
        {CNN_OP_INSTANCE_NORM, {4, {130, 5, 7, 9}}, .affine = true, .running = true, .evaluation = true},
        {CNN_OP_GROUP_NORM, {4, {2, 96, 33, 35}}, .groups = 8, .affine = true},
        {CNN_OP_GROUP_NORM, {4, {17, 24, 19, 21}}, .groups = 4, .affine = true},
        {CNN_OP_LAYER_NORM, {2, {700, 65}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {2, {5000, 3}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {2, {23, 17003}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {9, 7, 61, 43}}, .axes = 3, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {2, 3, 131, 127}}, .axes = 2, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {2, 33, 35, 37}}, .axes = 4, .affine = true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) check_case(&cases[i], 0.3, 1.0, 3e-6);
}

static norm_case random_case(void)
{
    norm_case c = {.op = (cnn_op)random_between(CNN_OP_BATCH_NORM, CNN_OP_LAYER_NORM), .affine = random_between(0, 3) > 0};
    const bool running_kind = c.op == CNN_OP_BATCH_NORM || c.op == CNN_OP_INSTANCE_NORM;
    const int64_t lowest = c.op == CNN_OP_LAYER_NORM ? 1 : c.op == CNN_OP_INSTANCE_NORM ? 3 : 2;
    c.src.rank = (int32_t)random_between(lowest, 4);
    c.groups = random_between(1, 4);
    for (int32_t i = 0; i < c.src.rank; i++) c.src.dim[i] = random_between(1, 9);
    c.src.dim[0] = random_between(2, 20);
    if (c.op != CNN_OP_LAYER_NORM) c.src.dim[1] = c.groups * random_between(1, 18);
    if (c.op == CNN_OP_INSTANCE_NORM) c.src.dim[2] = random_between(2, 9);
    c.axes = (int32_t)random_between(1, c.src.rank);
    c.running = running_kind && random_between(0, 1) == 1;
    c.evaluation = random_between(0, 2) == 0;
    c.momentum = random_between(0, 3) == 0 ? -1.0 : 0.3;
    c.eps = 1e-3; /* a set of few numbers may have hardly any variance */
    return c;
}

static void agrees_on_random_shapes(void)
{
    uint64_t state = 5;
    for (int i = 0; i < 400; i++) {
        random_state = state;
        const norm_case c = random_case();
        state = random_state;
        check_case(&c, 0.5, 2.0, 1e-5);
    }
}

/* ---- numerics ---------------------------------------------------------------------------------------------------- */

/* src with a mean of 1000 standard deviations: naive sums of squares would have no digit of the variance right. */
static void stays_accurate_far_from_zero(void)
{
    static const norm_case cases[] = {
        {CNN_OP_BATCH_NORM, {4, {4, 37, 41, 43}}, .affine = true, .running = true},
        {CNN_OP_BATCH_NORM, {4, {4, 3, 41, 43}}, .affine = true},
        {CNN_OP_BATCH_NORM, {2, {6, 5}}, .affine = true},
        {CNN_OP_INSTANCE_NORM, {4, {3, 19, 33, 35}}, .affine = true},
        {CNN_OP_GROUP_NORM, {4, {3, 32, 33, 35}}, .groups = 4, .affine = true},
        {CNN_OP_LAYER_NORM, {2, {30, 1000}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {3, 32, 33, 35}}, .axes = 3, .affine = true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) check_case(&cases[i], 1000.0, 1.0, 1e-6);
}

/* Loss = sum of dst times diff_dst. */
static double loss_of(norm_run *run)
{
    double loss = 0.0;
    if (cnn_context_forward(run->context) != CNN_OK) return NAN;
    for (int64_t i = 0; i < run->count[DST]; i++) loss += get(run, run->data[DST], i) * get(run, run->diff[DST], i);
    return loss;
}

static void check_gradients(const norm_case *c)
{
    const double step = 1e-5;
    norm_run run;
    REQUIRE(build(c, CNN_FLOAT64, true, &run) == CNN_OK);
    REQUIRE(compute(&run, 11, 0.2, 1.0, 0.0) == CNN_OK);
    for (int t = SRC_TENSOR; t <= BIAS; t++)
        for (int64_t i = 0; i < run.count[t]; i++) {
            const double x = get(&run, run.data[t], i);
            set(&run, run.data[t], i, x + step);
            const double up = loss_of(&run);
            set(&run, run.data[t], i, x - step);
            const double down = loss_of(&run);
            set(&run, run.data[t], i, x);
            CHECK_NEAR(get(&run, run.diff[t], i), (up - down) / (2.0 * step), 1e-7);
        }
    release(&run);
}

static void has_the_gradients_of_central_differences(void)
{
    static const norm_case cases[] = {
        {CNN_OP_BATCH_NORM, {4, {2, 3, 2, 3}}, .affine = true},
        {CNN_OP_BATCH_NORM, {3, {3, 2, 4}}, .affine = true, .running = true, .evaluation = true},
        {CNN_OP_INSTANCE_NORM, {4, {2, 3, 2, 3}}, .affine = true},
        {CNN_OP_INSTANCE_NORM, {4, {2, 3, 2, 3}}, .affine = true, .running = true, .evaluation = true},
        {CNN_OP_GROUP_NORM, {4, {2, 4, 2, 3}}, .groups = 2, .affine = true},
        {CNN_OP_GROUP_NORM, {2, {3, 6}}, .groups = 2, .affine = true},
        {CNN_OP_LAYER_NORM, {3, {2, 3, 4}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {2, 2, 3, 2}}, .axes = 2, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {2, 2, 3, 2}}, .axes = 3, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {2, 2, 3, 2}}, .axes = 4, .affine = true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) check_gradients(&cases[i]);
}

static void passes_nan_on(void)
{
    const norm_case c = {CNN_OP_BATCH_NORM, {4, {2, 11, 3, 3}}, .affine = true};
    norm_run run;
    REQUIRE(build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
    draw(&run, 3, 0.0, 1.0, 0.0);
    set(&run, run.data[SRC_TENSOR], 11 * 5 + 9, NAN); /* a pixel of channel 9 */
    REQUIRE(run_once(&run) == CNN_OK);
    for (int64_t i = 0; i < run.count[DST]; i++) {
        CHECK_INT(isnan(get(&run, run.data[DST], i)), i % 11 == 9);
        CHECK_INT(isnan(get(&run, run.diff[SRC_TENSOR], i)), i % 11 == 9);
    }
    release(&run);
}

/* A channel of one value everywhere has no variance: only eps keeps it from infinity. */
static void gives_the_bias_for_a_constant(void)
{
    static const double values[] = {0.0, 1.0, -3.7e4, 1e-30};
    const norm_case c = {CNN_OP_BATCH_NORM, {4, {2, 3, 19, 21}}, .affine = true};
    norm_run run;
    REQUIRE(build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
    for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
        draw(&run, 5, 0.0, 1.0, 0.0);
        fill(&run, SRC_TENSOR, run.data[SRC_TENSOR], values[v]);
        REQUIRE(run_once(&run) == CNN_OK);
        for (int64_t i = 0; i < run.count[DST]; i++)
            CHECK_NEAR(get(&run, run.data[DST], i), get(&run, run.data[BIAS], i % 3), 1e-6 * fabs(values[v]) / 3e-3 + 1e-6);
    }
    release(&run);
}

/* ---- running statistics ------------------------------------------------------------------------------------------ */

/* Channel of n = 2, h = w = 1: the numbers a and b have mean (a + b) / 2 and unbiased variance (a - b)^2 / 2. */
static void step_on(norm_run *run, float a, float b)
{
    float *src = run->data[SRC_TENSOR];
    src[0] = a;
    src[1] = b;
    CHECK_INT(cnn_context_forward(run->context), CNN_OK);
}

static void start_running(norm_run *run)
{
    *(float *)run->data[RUNNING_MEAN] = 0.0f;
    *(float *)run->data[RUNNING_VAR] = 1.0f;
    *(int64_t *)run->data[NUM_BATCHES] = 0;
}

static void moves_running_statistics(void)
{
    const norm_case c = {CNN_OP_BATCH_NORM, {2, {2, 1}}, .running = true, .momentum = 0.25};
    norm_run run;
    REQUIRE(build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
    start_running(&run);
    step_on(&run, 1.0f, 5.0f); /* mean 3, unbiased variance 8 */
    CHECK_NEAR(*(float *)run.data[RUNNING_MEAN], 0.75, 1e-7);
    CHECK_NEAR(*(float *)run.data[RUNNING_VAR], 2.75, 1e-7);
    step_on(&run, -1.0f, 1.0f); /* mean 0, unbiased variance 2 */
    CHECK_NEAR(*(float *)run.data[RUNNING_MEAN], 0.5625, 1e-7);
    CHECK_NEAR(*(float *)run.data[RUNNING_VAR], 2.5625, 1e-7);
    CHECK_INT(num_batches(&run), 2);
    release(&run);
}

static void averages_cumulatively(void)
{
    const norm_case c = {CNN_OP_BATCH_NORM, {2, {2, 1}}, .running = true, .momentum = -1.0};
    norm_run run;
    REQUIRE(build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
    start_running(&run);
    step_on(&run, 1.0f, 5.0f);
    CHECK_NEAR(*(float *)run.data[RUNNING_MEAN], 3.0, 1e-7);
    CHECK_NEAR(*(float *)run.data[RUNNING_VAR], 8.0, 1e-7);
    step_on(&run, -1.0f, 1.0f);
    step_on(&run, 8.0f, 10.0f);
    CHECK_NEAR(*(float *)run.data[RUNNING_MEAN], 4.0, 1e-6);
    CHECK_NEAR(*(float *)run.data[RUNNING_VAR], 4.0, 1e-6);
    CHECK_INT(num_batches(&run), 3);
    release(&run);
}

/* As PyTorch's, instance normalization takes part in running statistics without counting batches. */
static void counts_no_batches_of_instances(void)
{
    const norm_case c = {CNN_OP_INSTANCE_NORM, {4, {2, 1, 1, 2}}, .running = true, .momentum = 0.5};
    norm_run run;
    REQUIRE(build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
    start_running(&run);
    float *src = run.data[SRC_TENSOR];
    src[2] = 10.0f;
    src[3] = 20.0f;           /* mean 15, unbiased variance 50 */
    step_on(&run, 1.0f, 5.0f); /* mean 3, unbiased variance 8 */
    CHECK_NEAR(*(float *)run.data[RUNNING_MEAN], 4.5, 1e-6);
    CHECK_NEAR(*(float *)run.data[RUNNING_VAR], 15.0, 1e-6);
    CHECK_INT(num_batches(&run), 0);
    release(&run);
}

static void evaluation_leaves_running_statistics(void)
{
    const norm_case c = {CNN_OP_BATCH_NORM, {2, {2, 1}}, .running = true, .evaluation = true};
    norm_run run;
    REQUIRE(build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
    start_running(&run);
    *(float *)run.data[RUNNING_MEAN] = 2.0f;
    *(float *)run.data[RUNNING_VAR] = 4.0f;
    step_on(&run, 6.0f, 2.0f);
    CHECK_NEAR(((float *)run.data[DST])[0], 2.0, 1e-5);
    CHECK_NEAR(((float *)run.data[DST])[1], 0.0, 1e-6);
    CHECK_NEAR(*(float *)run.data[RUNNING_MEAN], 2.0, 0.0);
    CHECK_NEAR(*(float *)run.data[RUNNING_VAR], 4.0, 0.0);
    CHECK_INT(num_batches(&run), 0);
    release(&run);
}

static void takes_empty_batches(void)
{
    static const norm_case cases[] = {
        {CNN_OP_BATCH_NORM, {4, {0, 5, 3, 3}}, .affine = true, .running = true},
        {CNN_OP_INSTANCE_NORM, {4, {0, 5, 3, 3}}, .affine = true, .running = true},
        {CNN_OP_GROUP_NORM, {4, {0, 6, 3, 3}}, .groups = 2, .affine = true},
        {CNN_OP_GROUP_NORM, {4, {2, 6, 0, 3}}, .groups = 2, .affine = true},
        {CNN_OP_LAYER_NORM, {3, {0, 2, 6}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {2, {3, 0}}, .axes = 1, .affine = true},
        {CNN_OP_BATCH_NORM, {4, {2, 0, 3, 3}}, .affine = true, .running = true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int reference = 0; reference < 2; reference++) {
            norm_run run;
            REQUIRE(build(&cases[i], CNN_FLOAT32, reference != 0, &run) == CNN_OK);
            draw(&run, 9, 0.0, 1.0, 0.5);
            fill(&run, RUNNING_MEAN, run.data[RUNNING_MEAN], 0.25);
            CHECK_INT(run_once(&run), CNN_OK);
            for (int64_t j = 0; j < run.count[RUNNING_MEAN]; j++)
                CHECK_NEAR(get(&run, run.data[RUNNING_MEAN], j), 0.25, 0.0);
            if (cases[i].running) CHECK_INT(num_batches(&run), 3);
            for (int64_t j = 0; j < run.count[WEIGHTS]; j++) CHECK_NEAR(get(&run, run.diff[WEIGHTS], j), 0.5, 0.0);
            release(&run);
        }
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

static bool same_bits(const norm_run *a, const norm_run *b)
{
    for (int t = 0; t < TENSORS; t++) {
        const size_t bytes = (size_t)a->count[t] * sizeof(float);
        if (a->count[t] == 0 || t == NUM_BATCHES) continue;
        if (t >= RUNNING_MEAN && memcmp(a->data[t], b->data[t], bytes) != 0) return false;
        if (t <= BIAS && memcmp(a->diff[t], b->diff[t], bytes) != 0) return false;
    }
    return true;
}

static void has_the_same_bits_at_any_thread_count(void)
{
    static const norm_case cases[] = {
        {CNN_OP_BATCH_NORM, {4, {4, 37, 61, 63}}, .affine = true, .running = true},
        {CNN_OP_BATCH_NORM, {4, {4, 37, 61, 63}}, .affine = true, .running = true, .evaluation = true},
        {CNN_OP_BATCH_NORM, {3, {6, 70, 517}}, .affine = true},
        {CNN_OP_INSTANCE_NORM, {4, {3, 19, 91, 92}}, .affine = true, .running = true},
        {CNN_OP_GROUP_NORM, {4, {35, 24, 19, 21}}, .groups = 4, .affine = true},
        {CNN_OP_LAYER_NORM, {2, {3000, 65}}, .axes = 1, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {9, 7, 61, 43}}, .axes = 3, .affine = true},
        {CNN_OP_LAYER_NORM, {4, {9, 7, 61, 43}}, .axes = 1, .affine = true},
    };
    const int32_t before = cnn_get_num_threads();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        norm_run alone;
        CHECK_INT(cnn_set_num_threads(1), CNN_OK);
        REQUIRE(build(&cases[i], CNN_FLOAT32, false, &alone) == CNN_OK);
        REQUIRE(compute(&alone, 21, 0.5, 1.0, 0.5) == CNN_OK);
        for (int32_t threads = 2; threads <= 4; threads++) {
            norm_run together;
            if (cnn_set_num_threads(threads) != CNN_OK) continue; /* a build without threads */
            REQUIRE(build(&cases[i], CNN_FLOAT32, false, &together) == CNN_OK);
            REQUIRE(compute(&together, 21, 0.5, 1.0, 0.5) == CNN_OK);
            CHECK(same_bits(&alone, &together));
            release(&together);
        }
        release(&alone);
    }
    CHECK_INT(cnn_set_num_threads(before), CNN_OK);
}

/* ---- what is refused --------------------------------------------------------------------------------------------- */

typedef struct refusal {
    cnn_op op;
    cnn_attributes attributes;
    cnn_shape src, weight, bias, running_mean, running_var, num_batches; /* rank -1: none */
    cnn_status status;
    const char *message;
} refusal;

#define NONE {-1, {0}}

static void check_refusal(const refusal *r)
{
    const cnn_shape *shapes[] = {&r->src, &r->weight, &r->bias, &r->running_mean, &r->running_var, &r->num_batches};
    const int32_t num_sources = r->op == CNN_OP_BATCH_NORM || r->op == CNN_OP_INSTANCE_NORM ? 6 : 3;
    cnn_graph *graph;
    cnn_value value[6], dst;
    REQUIRE(cnn_graph_create(CNN_FLOAT32, &graph) == CNN_OK);
    for (int i = 0; i < 6; i++) {
        value[i] = CNN_NONE;
        if (shapes[i]->rank < 0) continue;
        if (i == 0) REQUIRE(cnn_graph_input(graph, CNN_FLOAT32, shapes[i], &value[i]) == CNN_OK);
        if (i == 1 || i == 2) REQUIRE(cnn_graph_parameter(graph, shapes[i], &value[i]) == CNN_OK);
        if (i == 3 || i == 4) REQUIRE(cnn_graph_state(graph, CNN_FLOAT32, shapes[i], &value[i]) == CNN_OK);
        if (i == 5) REQUIRE(cnn_graph_state(graph, CNN_INT64, shapes[i], &value[i]) == CNN_OK);
    }
    CHECK_INT(cnn_graph_apply(graph, r->op, &r->attributes, num_sources, value, &dst), r->status);
    if (strstr(cnn_last_error(), r->message) == NULL) fprintf(stderr, "message: %s\n", cnn_last_error());
    CHECK(strstr(cnn_last_error(), r->message) != NULL);
    cnn_graph_free(graph);
}

static void refuses_bad_arguments(void)
{
#define BATCH(e, m) CNN_OP_BATCH_NORM, {.norm = {.eps = (e), .momentum = (m), .training = 1}}
    static const refusal cases[] = {
        {BATCH(1e-5, 0.1), {4, {1, 4, 1, 1}}, NONE, NONE, NONE, NONE, NONE, CNN_INVALID_VALUE,
         "x: got shape (1, 4, 1, 1), expected more than 1 value per channel"},
        {BATCH(1e-5, 0.1), {5, {2, 4, 1, 1, 2}}, NONE, NONE, NONE, NONE, NONE, CNN_INVALID_VALUE,
         "x: got shape (2, 4, 1, 1, 2), expected 2 to 4 dimensions"},
        {BATCH(1e-5, 0.1), {4, {2, 5, 3, 3}}, {1, {4}}, {1, {4}}, NONE, NONE, NONE, CNN_INVALID_VALUE,
         "x: got shape (2, 5, 3, 3) with 5 channels, expected num_features = 4"},
        {BATCH(1e-5, 0.1), {4, {2, 5, 3, 3}}, NONE, NONE, {1, {4}}, {1, {4}}, NONE, CNN_INVALID_VALUE,
         "expected num_features = 4"},
        {BATCH(1e-5, 0.1), {4, {2, 5, 3, 3}}, {1, {5}}, {1, {4}}, NONE, NONE, NONE, CNN_INVALID_VALUE,
         "bias: got shape (4,), expected (5,)"},
        {BATCH(1e-5, 0.1), {4, {2, 5, 3, 3}}, {2, {5, 1}}, NONE, NONE, NONE, NONE, CNN_INVALID_VALUE,
         "weight: got shape (5, 1), expected (5,)"},
        {BATCH(1e-5, 0.1), {4, {2, 5, 3, 3}}, {1, {5}}, {1, {5}}, {1, {6}}, {1, {5}}, NONE, CNN_INVALID_VALUE,
         "running_mean: got shape (6,), expected (5,)"},
        {BATCH(1e-5, 0.1), {4, {2, 5, 3, 3}}, NONE, NONE, {1, {5}}, {1, {6}}, NONE, CNN_INVALID_VALUE,
         "running_var: got shape (6,), expected (5,)"},
        {BATCH(1e-5, 0.1), {4, {2, 5, 3, 3}}, NONE, NONE, {1, {5}}, NONE, NONE, CNN_INVALID_VALUE,
         "running_var: got none"},
        {BATCH(1e-5, -1.0), {4, {2, 5, 3, 3}}, NONE, NONE, {1, {5}}, {1, {5}}, NONE, CNN_INVALID_VALUE,
         "num_batches: got none"},
        {BATCH(1e-5, 0.1), {4, {2, 5, 3, 3}}, NONE, NONE, {1, {5}}, {1, {5}}, {1, {2}}, CNN_INVALID_VALUE,
         "num_batches: got shape (2,)"},
        {BATCH(1e-5, NAN), {4, {2, 5, 3, 3}}, NONE, NONE, NONE, NONE, NONE, CNN_INVALID_VALUE,
         "momentum: got nan"},
        {BATCH(0.0, 0.1), {4, {2, 5, 3, 3}}, NONE, NONE, NONE, NONE, NONE, CNN_INVALID_VALUE, "eps: got 0"},
        {BATCH(-1e-5, 0.1), {4, {2, 5, 3, 3}}, NONE, NONE, NONE, NONE, NONE, CNN_INVALID_VALUE, "eps: got -1e-05"},
        {BATCH(INFINITY, 0.1), {4, {2, 5, 3, 3}}, NONE, NONE, NONE, NONE, NONE, CNN_INVALID_VALUE, "eps: got inf"},
        {CNN_OP_INSTANCE_NORM, {.norm = {.eps = 1e-5, .training = 1}}, {4, {3, 4, 1, 1}}, NONE, NONE, NONE, NONE, NONE,
         CNN_INVALID_VALUE, "x: got shape (3, 4, 1, 1), expected more than 1 spatial element"},
        {CNN_OP_INSTANCE_NORM, {.norm = {.eps = 1e-5}}, {2, {3, 4}}, NONE, NONE, NONE, NONE, NONE, CNN_INVALID_VALUE,
         "x: got shape (3, 4), expected 3 to 4 dimensions"},
        {CNN_OP_GROUP_NORM, {.norm = {.eps = 1e-5, .groups = 3}}, {4, {2, 8, 3, 3}}, NONE, NONE, NONE, NONE, NONE,
         CNN_INVALID_VALUE, "num_groups: got 3, expected a positive divisor of the 8 channels"},
        {CNN_OP_GROUP_NORM, {.norm = {.eps = 1e-5, .groups = 0}}, {4, {2, 8, 3, 3}}, NONE, NONE, NONE, NONE, NONE,
         CNN_INVALID_VALUE, "num_groups: got 0"},
        {CNN_OP_GROUP_NORM, {.norm = {.eps = 1e-5, .groups = 2}}, {4, {2, 8, 3, 3}}, {1, {6}}, NONE, NONE, NONE, NONE,
         CNN_INVALID_VALUE, "expected num_channels = 6"},
        {CNN_OP_LAYER_NORM, {.norm = {.eps = 1e-5, .axes = 3}}, {2, {2, 8}}, NONE, NONE, NONE, NONE, NONE,
         CNN_INVALID_VALUE, "normalized_shape: got 3 dimensions, expected 1 to 2"},
        {CNN_OP_LAYER_NORM, {.norm = {.eps = 1e-5, .axes = 0}}, {2, {2, 8}}, NONE, NONE, NONE, NONE, NONE,
         CNN_INVALID_VALUE, "normalized_shape: got 0 dimensions"},
        {CNN_OP_LAYER_NORM, {.norm = {.eps = 1e-5, .axes = 2}}, {3, {2, 8, 5}}, {2, {8, 6}}, NONE, NONE, NONE, NONE,
         CNN_INVALID_VALUE, "x: got shape (2, 8, 5), expected its last dimensions to be normalized_shape (8, 6)"},
        {CNN_OP_LAYER_NORM, {.norm = {.eps = 1e-5, .axes = 1}}, {2, {2, 8}}, {1, {8}}, {2, {2, 8}}, NONE, NONE, NONE,
         CNN_INVALID_VALUE, "bias: got shape (2, 8), expected (8,)"},
        {CNN_OP_LAYER_NORM, {.norm = {.eps = NAN, .axes = 1}}, {2, {2, 8}}, NONE, NONE, NONE, NONE, NONE,
         CNN_INVALID_VALUE, "eps: got nan"},
    };
#undef BATCH
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) check_refusal(&cases[i]);
}

static void takes_one_value_in_evaluation(void)
{
    const norm_case c = {CNN_OP_BATCH_NORM, {4, {1, 5, 1, 1}}, .affine = true, .running = true, .evaluation = true};
    check_case(&c, 0.0, 1.0, 2e-6);
}

static void refuses_integers_and_parameters(void)
{
    const cnn_attributes attributes = {.norm = {.eps = 1e-5, .training = 1}};
    const cnn_shape shape = {4, {2, 3, 4, 4}};
    cnn_graph *graph;
    cnn_value src, dst;
    REQUIRE(cnn_graph_create(CNN_FLOAT32, &graph) == CNN_OK);
    REQUIRE(cnn_graph_input(graph, CNN_INT64, &shape, &src) == CNN_OK);
    CHECK_INT(cnn_graph_apply(graph, CNN_OP_BATCH_NORM, &attributes, 1, &src, &dst), CNN_INVALID_TYPE);
    CHECK_STRING(cnn_last_error(), "batch_norm: x: got int64, expected float32");
    REQUIRE(cnn_graph_parameter(graph, &shape, &src) == CNN_OK);
    CHECK_INT(cnn_graph_apply(graph, CNN_OP_BATCH_NORM, &attributes, 1, &src, &dst), CNN_UNSUPPORTED);
    cnn_graph_free(graph);
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {
        TEST(agrees_with_the_reference),
        TEST(agrees_on_large_shapes),
        TEST(agrees_on_random_shapes),
        TEST(stays_accurate_far_from_zero),
        TEST(has_the_gradients_of_central_differences),
        TEST(passes_nan_on),
        TEST(gives_the_bias_for_a_constant),
        TEST(moves_running_statistics),
        TEST(averages_cumulatively),
        TEST(counts_no_batches_of_instances),
        TEST(evaluation_leaves_running_statistics),
        TEST(takes_empty_batches),
        TEST(has_the_same_bits_at_any_thread_count),
        TEST(refuses_bad_arguments),
        TEST(takes_one_value_in_evaluation),
        TEST(refuses_integers_and_parameters),
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
