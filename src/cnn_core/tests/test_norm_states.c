/* Normalizations: running statistics, empty batches, and what is refused. */
#include "norm_run.h"

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
    REQUIRE(norm_build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
    start_running(&run);
    step_on(&run, 1.0f, 5.0f); /* mean 3, unbiased variance 8 */
    CHECK_NEAR(*(float *)run.data[RUNNING_MEAN], 0.75, 1e-7);
    CHECK_NEAR(*(float *)run.data[RUNNING_VAR], 2.75, 1e-7);
    step_on(&run, -1.0f, 1.0f); /* mean 0, unbiased variance 2 */
    CHECK_NEAR(*(float *)run.data[RUNNING_MEAN], 0.5625, 1e-7);
    CHECK_NEAR(*(float *)run.data[RUNNING_VAR], 2.5625, 1e-7);
    CHECK_INT(norm_num_batches(&run), 2);
    norm_release(&run);
}

static void averages_cumulatively(void)
{
    const norm_case c = {CNN_OP_BATCH_NORM, {2, {2, 1}}, .running = true, .momentum = -1.0};
    norm_run run;
    REQUIRE(norm_build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
    start_running(&run);
    step_on(&run, 1.0f, 5.0f);
    CHECK_NEAR(*(float *)run.data[RUNNING_MEAN], 3.0, 1e-7);
    CHECK_NEAR(*(float *)run.data[RUNNING_VAR], 8.0, 1e-7);
    step_on(&run, -1.0f, 1.0f);
    step_on(&run, 8.0f, 10.0f);
    CHECK_NEAR(*(float *)run.data[RUNNING_MEAN], 4.0, 1e-6);
    CHECK_NEAR(*(float *)run.data[RUNNING_VAR], 4.0, 1e-6);
    CHECK_INT(norm_num_batches(&run), 3);
    norm_release(&run);
}

/* As PyTorch's, instance normalization takes part in running statistics without counting batches. */
static void counts_no_batches_of_instances(void)
{
    const norm_case c = {CNN_OP_INSTANCE_NORM, {4, {2, 1, 1, 2}}, .running = true, .momentum = 0.5};
    norm_run run;
    REQUIRE(norm_build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
    start_running(&run);
    float *src = run.data[SRC_TENSOR];
    src[2] = 10.0f;
    src[3] = 20.0f;           /* mean 15, unbiased variance 50 */
    step_on(&run, 1.0f, 5.0f); /* mean 3, unbiased variance 8 */
    CHECK_NEAR(*(float *)run.data[RUNNING_MEAN], 4.5, 1e-6);
    CHECK_NEAR(*(float *)run.data[RUNNING_VAR], 15.0, 1e-6);
    CHECK_INT(norm_num_batches(&run), 0);
    norm_release(&run);
}

static void evaluation_leaves_running_statistics(void)
{
    const norm_case c = {CNN_OP_BATCH_NORM, {2, {2, 1}}, .running = true, .evaluation = true};
    norm_run run;
    REQUIRE(norm_build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
    start_running(&run);
    *(float *)run.data[RUNNING_MEAN] = 2.0f;
    *(float *)run.data[RUNNING_VAR] = 4.0f;
    step_on(&run, 6.0f, 2.0f);
    CHECK_NEAR(((float *)run.data[DST])[0], 2.0, 1e-5);
    CHECK_NEAR(((float *)run.data[DST])[1], 0.0, 1e-6);
    CHECK_NEAR(*(float *)run.data[RUNNING_MEAN], 2.0, 0.0);
    CHECK_NEAR(*(float *)run.data[RUNNING_VAR], 4.0, 0.0);
    CHECK_INT(norm_num_batches(&run), 0);
    norm_release(&run);
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
            REQUIRE(norm_build(&cases[i], CNN_FLOAT32, reference != 0, &run) == CNN_OK);
            norm_draw(&run, 9, 0.0, 1.0, 0.5);
            norm_fill(&run, RUNNING_MEAN, run.data[RUNNING_MEAN], 0.25);
            CHECK_INT(norm_run_once(&run), CNN_OK);
            for (int64_t j = 0; j < run.count[RUNNING_MEAN]; j++)
                CHECK_NEAR(norm_get(&run, run.data[RUNNING_MEAN], j), 0.25, 0.0);
            if (cases[i].running) CHECK_INT(norm_num_batches(&run), 3);
            for (int64_t j = 0; j < run.count[WEIGHTS]; j++) CHECK_NEAR(norm_get(&run, run.diff[WEIGHTS], j), 0.5, 0.0);
            norm_release(&run);
        }
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
        {BATCH(1e-5, (double)NAN), {4, {2, 5, 3, 3}}, NONE, NONE, NONE, NONE, NONE, CNN_INVALID_VALUE,
         "momentum: got nan"},
        {BATCH(0.0, 0.1), {4, {2, 5, 3, 3}}, NONE, NONE, NONE, NONE, NONE, CNN_INVALID_VALUE, "eps: got 0"},
        {BATCH(-1e-5, 0.1), {4, {2, 5, 3, 3}}, NONE, NONE, NONE, NONE, NONE, CNN_INVALID_VALUE, "eps: got -1e-05"},
        {BATCH((double)INFINITY, 0.1), {4, {2, 5, 3, 3}}, NONE, NONE, NONE, NONE, NONE, CNN_INVALID_VALUE, "eps: got inf"},
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
        {CNN_OP_LAYER_NORM, {.norm = {.eps = (double)NAN, .axes = 1}}, {2, {2, 8}}, NONE, NONE, NONE, NONE, NONE,
         CNN_INVALID_VALUE, "eps: got nan"},
    };
#undef BATCH
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) check_refusal(&cases[i]);
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
        TEST(moves_running_statistics),
        TEST(averages_cumulatively),
        TEST(counts_no_batches_of_instances),
        TEST(evaluation_leaves_running_statistics),
        TEST(takes_empty_batches),
        TEST(refuses_bad_arguments),
        TEST(refuses_integers_and_parameters),
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
