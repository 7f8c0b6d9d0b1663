/* Random numbers: the generator against its published vectors, initial values, and dropout. */
#include "base/random.h"

#include "one_node.h"

/* ---- Philox ------------------------------------------------------------------------------------------------------- */

/* Known answers for 10 rounds, as published with the paper's reference implementation, Random123. */
static void philox_gives_the_known_answers(void)
{
    static const struct {
        uint32_t counter[4], key[2], answer[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int k = 0; k < 3; k++) {
        uint32_t word[4][CNN_PHILOX_LANES];
        for (int i = 0; i < 4; i++)
            for (int lane = 0; lane < CNN_PHILOX_LANES; lane++) word[i][lane] = known[k].counter[i];
        cnn_philox(word, (uint64_t)known[k].key[1] << 32 | known[k].key[0]);
        for (int i = 0; i < 4; i++)
            for (int lane = 0; lane < CNN_PHILOX_LANES; lane++) CHECK_INT(word[i][lane], known[k].answer[i]);
    }
}

/* Blocks past 2^32 have counters of their own. */
static void streams_do_not_wrap(void)
{
    const cnn_random_stream stream = {.seed = 5, .high = 3 << 12, .low = 7};
    uint32_t near[CNN_RANDOM_GROUP], far[CNN_RANDOM_GROUP];
    cnn_random_words(&stream, 1, near);
    cnn_random_words(&stream, 1 + (UINT64_C(1) << 32) / CNN_PHILOX_LANES, far);
    CHECK(memcmp(near, far, sizeof near) != 0);
}

/* ---- initial values ----------------------------------------------------------------------------------------------- */

#define MANY 100003

typedef cnn_status fill_fn(cnn_dtype dtype, int64_t n, void *dst, double a, double b, uint64_t seed, uint64_t stream);

static void moments(const float *x, int64_t n, double *mean, double *std)
{
    double sum = 0.0, square = 0.0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i];
    *mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++) square += ((double)x[i] - *mean) * ((double)x[i] - *mean);
    *std = sqrt(square / (double)n);
}

static void uniform_is_uniform(void)
{
    static float x[MANY];
    CHECK_INT(cnn_fill_uniform(CNN_FLOAT32, MANY, x, -1.0, 3.0, 1, 2), CNN_OK);
    int64_t bin[16] = {0};
    for (int64_t i = 0; i < MANY; i++) {
        REQUIRE(x[i] >= -1.0f && x[i] < 3.0f);
        bin[(int)((x[i] + 1.0f) * 4.0f)]++;
    }
    /* A bin's count has a standard deviation of 77; six of them are one in 10^8. */
    for (int i = 0; i < 16; i++) CHECK_NEAR((double)bin[i], MANY / 16.0, 6 * 77.0);
}

/* Every number of [2^24 - 1, 2^24) is one float, but half of them round up to 2^24. */
static void uniform_excludes_high(void)
{
    const int64_t n = INT64_C(1) << 20;
    float *x = malloc((size_t)n * sizeof *x);
    REQUIRE(x != NULL);
    CHECK_INT(cnn_fill_uniform(CNN_FLOAT32, n, x, 16777215.0, 16777216.0, 3, 0), CNN_OK);
    bool below = true;
    for (int64_t i = 0; i < n; i++) below = below && x[i] == 16777215.0f;
    CHECK(below);
    CHECK_INT(cnn_fill_uniform(CNN_FLOAT32, 5, x, 2.0, 2.0, 3, 0), CNN_OK);
    for (int i = 0; i < 5; i++) CHECK(x[i] == 2.0f);
    free(x);
}

static void normal_is_normal(void)
{
    static float x[MANY];
    CHECK_INT(cnn_fill_normal(CNN_FLOAT32, MANY, x, 2.0, 0.5, 1, 2), CNN_OK);
    double mean, std;
    moments(x, MANY, &mean, &std);
    CHECK_NEAR(mean, 2.0, 6 * 0.5 / 316.0);
    CHECK_NEAR(std, 0.5, 6 * 0.5 / 447.0);
    int64_t within[3] = {0};
    for (int64_t i = 0; i < MANY; i++) {
        REQUIRE(isfinite(x[i]));
        for (int k = 0; k < 3; k++) within[k] += fabs((double)x[i] - 2.0) < 0.5 * (k + 1);
    }
    const double share[3] = {0.6826895, 0.9544997, 0.9973002};
    for (int k = 0; k < 3; k++)
        CHECK_NEAR((double)within[k] / MANY, share[k], 6 * sqrt(share[k] * (1.0 - share[k]) / MANY));
}

/* float32 is float64 rounded; a run begins like a longer one; seeds and streams matter, the thread count does not. */
static void fills_are_reproducible(void)
{
    static fill_fn *const fills[] = {cnn_fill_uniform, cnn_fill_normal};
    static float x[MANY], y[MANY];
    static double z[MANY];
    const int32_t threads = cnn_get_num_threads();
    for (int f = 0; f < 2; f++) {
        cnn_set_num_threads(1);
        CHECK_INT(fills[f](CNN_FLOAT32, MANY, x, 0.0, 1.0, 9, 4), CNN_OK);
        for (int t = 2; t <= 4 && cnn_set_num_threads(t) == CNN_OK; t++) {
            CHECK_INT(fills[f](CNN_FLOAT32, MANY, y, 0.0, 1.0, 9, 4), CNN_OK);
            CHECK(memcmp(x, y, sizeof x) == 0);
        }
        CHECK_INT(fills[f](CNN_FLOAT64, MANY, z, 0.0, 1.0, 9, 4), CNN_OK);
        bool rounded = true;
        for (int64_t i = 0; i < MANY; i++) rounded = rounded && (x[i] == (float)z[i] || (float)z[i] == 1.0f);
        CHECK(rounded);
        CHECK_INT(fills[f](CNN_FLOAT32, 77, y, 0.0, 1.0, 9, 4), CNN_OK);
        CHECK(memcmp(x, y, 77 * sizeof *x) == 0);
        CHECK_INT(fills[f](CNN_FLOAT32, 77, y, 0.0, 1.0, 10, 4), CNN_OK);
        CHECK(memcmp(x, y, 77 * sizeof *x) != 0);
        CHECK_INT(fills[f](CNN_FLOAT32, 77, y, 0.0, 1.0, 9, 5), CNN_OK);
        CHECK(memcmp(x, y, 77 * sizeof *x) != 0);
    }
    cnn_set_num_threads(threads);
}

static void bad_fills_are_refused(void)
{
    float x[4];
    const double inf = (double)INFINITY, nan = (double)NAN;
#define REFUSED(call, status, text)                      \
    do {                                                 \
        CHECK_INT(call, status);                         \
        CHECK(strstr(cnn_last_error(), text) != NULL);   \
    } while (0)
    REFUSED(cnn_fill_uniform(CNN_INT64, 4, x, 0, 1, 0, 0), CNN_INVALID_TYPE, "dtype");
    REFUSED(cnn_fill_uniform(CNN_FLOAT32, -1, x, 0, 1, 0, 0), CNN_INVALID_VALUE, "n: got -1");
    REFUSED(cnn_fill_uniform(CNN_FLOAT32, 4, NULL, 0, 1, 0, 0), CNN_INVALID_VALUE, "dst");
    REFUSED(cnn_fill_uniform(CNN_FLOAT32, 4, x, 1, 0, 0, 0), CNN_INVALID_VALUE, "high: got 0");
    REFUSED(cnn_fill_uniform(CNN_FLOAT32, 4, x, nan, 0, 0, 0), CNN_INVALID_VALUE, "low");
    REFUSED(cnn_fill_uniform(CNN_FLOAT32, 4, x, 0, inf, 0, 0), CNN_INVALID_VALUE, "high");
    REFUSED(cnn_fill_uniform(CNN_FLOAT32, 4, x, -1e308, 1e308, 0, 0), CNN_INVALID_VALUE, "high - low");
    REFUSED(cnn_fill_normal(CNN_FLOAT32, 4, x, nan, 1, 0, 0), CNN_INVALID_VALUE, "mean");
    REFUSED(cnn_fill_normal(CNN_FLOAT32, 4, x, 0, -1, 0, 0), CNN_INVALID_VALUE, "std: got -1");
    REFUSED(cnn_fill_normal(CNN_FLOAT32, 4, x, 0, inf, 0, 0), CNN_INVALID_VALUE, "std");
#undef REFUSED
    CHECK_INT(cnn_fill_normal(CNN_FLOAT32, 0, NULL, 0, 1, 0, 0), CNN_OK);
}

/* ---- dropout ------------------------------------------------------------------------------------------------------ */

static node_case dropout_case(double p, bool training, bool per_channel, int32_t rank, const int64_t *dim)
{
    node_case c = {.op = CNN_OP_DROPOUT, .num_sources = 1, .src = {{.kind = NODE_INPUT, .shape = {.rank = rank}}}};
    c.attributes.dropout.p = p;
    c.attributes.dropout.training = training;
    c.attributes.dropout.per_channel = per_channel;
    for (int32_t i = 0; i < rank; i++) c.src[0].shape.dim[i] = dim[i];
    return c;
}

static const int64_t image[] = {3, 19, 31, 17};

/* Every path has the same mask and, as it is linear, the right gradient. */
static void dropout_agrees_with_the_reference(void)
{
    static const int64_t dims[][5] = {{1, 1, 1, 1, 1}, {2, 3, 5, 7, 2}, {5, 70, 3, 1, 4}, {0, 4, 2, 2, 2}, {2, 64, 9, 9, 1}};
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
        for (int32_t rank = 1; rank <= 5; rank++)
            for (int planes = 0; planes <= (rank > 1); planes++)
                for (int p = 0; p <= 4; p++) {
                    const node_case c = dropout_case(p / 4.0, true, planes, rank, dims[d]);
                    node_check(&c, 1e-6);
                }
    const node_case c = dropout_case(0.3, true, false, 3, (int64_t[]){2, 3, 5});
    node_check_gradient(&c);
}

static void dropout_drops_the_share_asked_for(void)
{
    const node_case c = dropout_case(0.3, true, false, 4, image);
    node_run run;
    REQUIRE(node_build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
    node_fill(CNN_FLOAT32, run.src[0].data, run.src[0].count, 1.0);
    node_fill(CNN_FLOAT32, run.dst.diff, run.dst.count, 1.0);
    CHECK_INT(node_run_both(&run), CNN_OK);
    const float *y = run.dst.data, *dx = run.src[0].diff;
    int64_t dropped = 0;
    for (int64_t i = 0; i < run.dst.count; i++) {
        dropped += y[i] == 0.0f;
        if (y[i] != 0.0f) CHECK_NEAR(y[i], 1.0 / 0.7, 1e-6);
        REQUIRE(dx[i] == y[i]);
    }
    const double n = (double)run.dst.count;
    CHECK_NEAR((double)dropped / n, 0.3, 6 * sqrt(0.3 * 0.7 / n));
    node_release(&run);
}

static void dropout_by_channel_drops_planes(void)
{
    const node_case c = dropout_case(0.5, true, true, 4, image);
    node_run run;
    REQUIRE(node_build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
    node_fill(CNN_FLOAT32, run.src[0].data, run.src[0].count, 1.0);
    CHECK_INT(cnn_context_forward(run.context), CNN_OK);
    const float *y = run.dst.data;
    const int64_t channels = image[1], pixels = image[2] * image[3];
    int64_t dropped = 0;
    for (int64_t n = 0; n < image[0]; n++)
        for (int64_t c1 = 0; c1 < channels; c1++) {
            const float first = y[n * pixels * channels + c1];
            dropped += first == 0.0f;
            CHECK(first == 0.0f || first == 2.0f);
            for (int64_t i = 0; i < pixels; i++) REQUIRE(y[(n * pixels + i) * channels + c1] == first);
        }
    CHECK(dropped > 10 && dropped < 47);
    node_release(&run);
}

static void dropout_is_the_identity_in_evaluation(void)
{
    for (int planes = 0; planes < 2; planes++)
        for (int training = 0; training < 2; training++) {
            const node_case c = dropout_case(training ? 0.0 : 0.5, training, planes, 4, image);
            node_run run;
            REQUIRE(node_build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
            REQUIRE(node_compute(&c, &run, 3) == CNN_OK);
            CHECK(memcmp(run.dst.data, run.src[0].data, (size_t)run.dst.count * sizeof(float)) == 0);
            CHECK(memcmp(run.dst.diff, run.src[0].diff, (size_t)run.dst.count * sizeof(float)) == 0);
            node_release(&run);
        }
}

/* The mask depends on seed and call; backward uses forward's, even when both have changed since. */
static void dropout_follows_seed_and_call(void)
{
    const node_case c = dropout_case(0.5, true, false, 4, image);
    node_run run;
    REQUIRE(node_build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
    const size_t bytes = (size_t)run.dst.count * sizeof(float);
    float *first = malloc(bytes);
    REQUIRE(first != NULL);
    node_fill(CNN_FLOAT32, run.src[0].data, run.src[0].count, 1.0);
    node_fill(CNN_FLOAT32, run.dst.diff, run.dst.count, 1.0);
    cnn_context_random(run.context, 1, 1);
    CHECK_INT(cnn_context_forward(run.context), CNN_OK);
    memcpy(first, run.dst.data, bytes);
    cnn_context_random(run.context, 2, 2);
    CHECK_INT(cnn_context_backward(run.context), CNN_OK);
    CHECK(memcmp(first, run.src[0].diff, bytes) == 0);
    CHECK_INT(cnn_context_forward(run.context), CNN_OK);
    CHECK(memcmp(first, run.dst.data, bytes) != 0);
    cnn_context_random(run.context, 1, 2);
    CHECK_INT(cnn_context_forward(run.context), CNN_OK);
    CHECK(memcmp(first, run.dst.data, bytes) != 0);
    cnn_context_random(run.context, 1, 1);
    CHECK_INT(cnn_context_forward(run.context), CNN_OK);
    CHECK(memcmp(first, run.dst.data, bytes) == 0);
    free(first);
    node_release(&run);
}

/* Two dropouts of one network, in one call. */
static void dropouts_of_a_network_differ(void)
{
    const cnn_shape shape = {.rank = 1, .dim = {200}};
    const cnn_attributes attributes = {.dropout = {.p = 0.5, .training = 1}};
    float x[200], y[2][200];
    for (int i = 0; i < 200; i++) x[i] = 1.0f;
    cnn_graph *graph = NULL;
    cnn_plan *plan = NULL;
    cnn_context *context = NULL;
    cnn_value src, dst[2];
    CHECK_INT(cnn_graph_create(CNN_FLOAT32, &graph), CNN_OK);
    CHECK_INT(cnn_graph_input(graph, CNN_FLOAT32, &shape, &src), CNN_OK);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(cnn_graph_apply(graph, CNN_OP_DROPOUT, &attributes, 1, &src, &dst[i]), CNN_OK);
        CHECK_INT(cnn_graph_output(graph, dst[i]), CNN_OK);
    }
    CHECK_INT(cnn_plan_create(graph, NULL, &plan), CNN_OK);
    CHECK_INT(cnn_context_create(plan, &context), CNN_OK);
    CHECK_INT(cnn_context_bind(context, src, x, NULL), CNN_OK);
    for (int i = 0; i < 2; i++) CHECK_INT(cnn_context_bind(context, dst[i], y[i], NULL), CNN_OK);
    CHECK_INT(cnn_context_forward(context), CNN_OK);
    CHECK(memcmp(y[0], y[1], sizeof y[0]) != 0);
    cnn_context_free(context);
    cnn_plan_free(plan);
    cnn_graph_free(graph);
}

static void dropout_has_the_same_bits_on_any_threads(void)
{
    const int64_t large[] = {7, 33, 41, 37};
    for (int planes = 0; planes < 2; planes++) {
        const node_case c = dropout_case(0.4, true, planes, 4, large);
        node_check_threads(&c);
    }
}

static void bad_dropout_is_refused(void)
{
    node_case c = dropout_case(1.5, true, false, 4, image);
    node_check_refused(&c, CNN_INVALID_VALUE, "dropout: p: got 1.5");
    c = dropout_case(-0.1, true, false, 4, image);
    node_check_refused(&c, CNN_INVALID_VALUE, "p: got -0.1");
    c = dropout_case((double)NAN, true, false, 4, image);
    node_check_refused(&c, CNN_INVALID_VALUE, "p: got");
    c = dropout_case(0.5, true, true, 1, image);
    node_check_refused(&c, CNN_INVALID_VALUE, "x: got shape (3,)");
    c = dropout_case(0.5, true, false, 2, image);
    c.src[0].kind = NODE_CLASSES;
    node_check_refused(&c, CNN_INVALID_TYPE, "x: got int64");
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {
        TEST(philox_gives_the_known_answers),
        TEST(streams_do_not_wrap),
        TEST(uniform_is_uniform),
        TEST(uniform_excludes_high),
        TEST(normal_is_normal),
        TEST(fills_are_reproducible),
        TEST(bad_fills_are_refused),
        TEST(dropout_agrees_with_the_reference),
        TEST(dropout_drops_the_share_asked_for),
        TEST(dropout_by_channel_drops_planes),
        TEST(dropout_is_the_identity_in_evaluation),
        TEST(dropout_follows_seed_and_call),
        TEST(dropouts_of_a_network_differ),
        TEST(dropout_has_the_same_bits_on_any_threads),
        TEST(bad_dropout_is_refused),
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
