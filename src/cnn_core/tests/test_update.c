/* Updates, norms, penalties: each rule against the formulas of its paper, written out once more; segments, threads, bad
 * input. */
#include <stdint.h>
#include <stdlib.h>

#include "cnn_core.h"
#include "test.h"

/* ---- parameters in segments ---------------------------------------------------------------------------------------- */

#define SEGMENTS 6
#define STATES 3

static const int64_t lengths[SEGMENTS] = {1, 0, 7, 20003, 16, 33000};

/* One flat buffer each, in guarded arrays: GUARD elements behind each segment must stay as they are. */
#define GUARD 3

typedef struct parameters {
    cnn_dtype dtype;
    int64_t total; /* with the guards */
    void *weights, *diff, *state[STATES];
    cnn_segment segment[SEGMENTS];
} parameters;

static uint64_t random_state;

/* In -1 .. 1, a float exactly. */
static double random_number(void)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)((int64_t)(random_state >> 40) - (1 << 23)) / (double)(1 << 23);
}

static size_t width(cnn_dtype dtype)
{
    return dtype == CNN_FLOAT64 ? sizeof(double) : sizeof(float);
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

static void fill(cnn_dtype dtype, void *to, int64_t n)
{
    for (int64_t i = 0; i < n; i++) set(dtype, to, i, random_number());
}

/* Segments with learning rates and decays of their own; states lie in reverse order of the weights. */
static bool make(parameters *p, cnn_dtype dtype, uint64_t seed)
{
    *p = (parameters){.dtype = dtype};
    for (int s = 0; s < SEGMENTS; s++) p->total += lengths[s] + GUARD;
    p->weights = malloc((size_t)p->total * width(dtype));
    p->diff = malloc((size_t)p->total * width(dtype));
    bool ok = p->weights != NULL && p->diff != NULL;
    for (int j = 0; j < STATES; j++) {
        p->state[j] = calloc((size_t)p->total, width(dtype));
        ok = ok && p->state[j] != NULL;
    }
    if (!ok) return false;
    random_state = seed;
    fill(dtype, p->weights, p->total);
    fill(dtype, p->diff, p->total);
    int64_t offset = 0;
    for (int s = 0; s < SEGMENTS; s++) {
        p->segment[s] = (cnn_segment){
            .weights = (char *)p->weights + (size_t)offset * width(dtype),
            .diff_weights = (char *)p->diff + (size_t)offset * width(dtype),
            .length = lengths[s],
            .state_offset = p->total - offset - lengths[s] - GUARD,
            .lr_scale = 1.0 - 0.1 * s,
            .weight_decay = 0.01 * s,
        };
        offset += lengths[s] + GUARD;
    }
    return true;
}

static void release(parameters *p)
{
    free(p->weights);
    free(p->diff);
    for (int j = 0; j < STATES; j++) free(p->state[j]);
}

/* ---- rules --------------------------------------------------------------------------------------------------------- */

/* One weight's update by the book, in double; state[3] is its own. */
static double expected_step(const cnn_update *u, const cnn_segment *segment, double w, double g, double state[STATES])
{
    const double lr = u->learning_rate * segment->lr_scale, t = (double)u->step;
    g *= u->gradient_scale * (u->maximize ? -1.0 : 1.0);
    if (u->rule == CNN_ADAMW)
        w -= lr * segment->weight_decay * w;
    else
        g += segment->weight_decay * w;
    switch (u->rule) {
    case CNN_SGD:
        if (u->momentum == 0.0) return w - lr * g;
        state[0] = u->step == 1 ? g : u->momentum * state[0] + (1.0 - u->dampening) * g;
        return w - lr * (u->nesterov ? g + u->momentum * state[0] : state[0]);
    case CNN_ADAM:
    case CNN_ADAMW:
        state[0] = u->beta1 * state[0] + (1.0 - u->beta1) * g;
        state[1] = u->beta2 * state[1] + (1.0 - u->beta2) * g * g;
        return w - lr * state[0] / (1.0 - pow(u->beta1, t)) / (sqrt(state[1] / (1.0 - pow(u->beta2, t))) + u->eps);
    case CNN_RMSPROP:
        state[0] = u->beta2 * state[0] + (1.0 - u->beta2) * g * g;
        state[2] = u->beta2 * state[2] + (1.0 - u->beta2) * g;
        g /= sqrt(state[0] - (u->centered ? state[2] * state[2] : 0.0)) + u->eps;
        state[1] = u->momentum * state[1] + g;
        return w - lr * state[1];
    }
    return (double)NAN;
}

/* 20 steps, gradients that change; the guards between segments must not. */
static void check_rule(cnn_update update, cnn_dtype dtype, double tolerance)
{
    parameters p;
    double worst = 0.0;
    bool untouched = true;
    REQUIRE(make(&p, dtype, 3));
    double *w = malloc((size_t)p.total * sizeof *w), *state = calloc((size_t)p.total * STATES, sizeof *state);
    REQUIRE(w != NULL && state != NULL);
    for (int64_t i = 0; i < p.total; i++) w[i] = get(dtype, p.weights, i);
    for (update.step = 1; update.step <= 20; update.step++) {
        fill(dtype, p.diff, p.total);
        int64_t i = 0;
        for (int s = 0; s < SEGMENTS; s++, i += GUARD)
            for (int64_t j = 0; j < lengths[s]; j++, i++)
                w[i] = expected_step(&update, &p.segment[s], w[i], get(dtype, p.diff, i), &state[STATES * i]);
        CHECK_INT(cnn_update_apply(&update, dtype, SEGMENTS, p.segment, p.state), CNN_OK);
        i = 0;
        for (int s = 0; s < SEGMENTS; s++) {
            for (int64_t j = 0; j < lengths[s]; j++, i++) {
                const double error = fabs(get(dtype, p.weights, i) - w[i]);
                if (error > worst || isnan(error)) worst = error;
            }
            for (int64_t j = 0; j < GUARD; j++, i++) untouched = untouched && get(dtype, p.weights, i) == w[i];
        }
    }
    CHECK(untouched);
    CHECK_NEAR(worst, 0.0, tolerance);
    free(w);
    free(state);
    release(&p);
}

static void check_rule_in_both_types(cnn_update update, double tolerance)
{
    check_rule(update, CNN_FLOAT32, tolerance);
    check_rule(update, CNN_FLOAT64, 1e-12);
}

static const cnn_update base = {.learning_rate = 0.05,
                                .beta1 = 0.9,
                                .beta2 = 0.99,
                                .eps = 1e-6,
                                .gradient_scale = 0.75,
                                .step = 1};

static void sgd_follows_the_formulas(void)
{
    cnn_update u = base;
    u.rule = CNN_SGD;
    check_rule_in_both_types(u, 2e-6);
    u.maximize = 1;
    check_rule_in_both_types(u, 2e-6);
    u.momentum = 0.9;
    check_rule_in_both_types(u, 1e-5);
    u.dampening = 0.3;
    check_rule_in_both_types(u, 1e-5);
    u.dampening = 0.0;
    u.nesterov = 1;
    check_rule_in_both_types(u, 1e-5);
}

static void adam_follows_the_formulas(void)
{
    cnn_update u = base;
    u.rule = CNN_ADAM;
    check_rule_in_both_types(u, 1e-5);
    u.rule = CNN_ADAMW;
    check_rule_in_both_types(u, 1e-5);
    u.beta1 = u.beta2 = 0.0;
    check_rule_in_both_types(u, 1e-5);
}

static void rmsprop_follows_the_formulas(void)
{
    cnn_update u = base;
    u.rule = CNN_RMSPROP;
    u.eps = 1e-2; /* a centred variance of a few numbers is small, and its rounding errors are not */
    for (u.centered = 0; u.centered < 2; u.centered++)
        for (int momentum = 0; momentum < 2; momentum++) {
            u.momentum = 0.5 * momentum;
            check_rule_in_both_types(u, 1e-4);
        }
}

/* A constant gradient has no variance: rounding must not make it negative, and its root NaN. */
static void centered_rmsprop_survives_constant_gradients(void)
{
    float w[37], g[37], square[37] = {0}, mean[37] = {0};
    for (int i = 0; i < 37; i++) w[i] = 1.0f, g[i] = 0.1f + (float)i;
    const cnn_segment segment = {w, g, 37, 0, 1.0, 0.0};
    void *state[3] = {square, NULL, mean};
    cnn_update u = base;
    u.rule = CNN_RMSPROP;
    u.centered = 1;
    for (u.step = 1; u.step <= 3000; u.step++) CHECK_INT(cnn_update_apply(&u, CNN_FLOAT32, 1, &segment, state), CNN_OK);
    for (int i = 0; i < 37; i++) CHECK(isfinite(w[i]));
}

/* ---- norms, penalties ----------------------------------------------------------------------------------------------- */

static void norms_are_right(void)
{
    for (int type = 0; type < 2; type++) {
        const cnn_dtype dtype = type ? CNN_FLOAT64 : CNN_FLOAT32;
        parameters p;
        REQUIRE(make(&p, dtype, 5));
        double square = 0.0, most = 0.0, norm;
        int64_t i = 0;
        for (int s = 0; s < SEGMENTS; s++, i += GUARD)
            for (int64_t j = 0; j < lengths[s]; j++, i++) {
                square += get(dtype, p.diff, i) * get(dtype, p.diff, i);
                most = fmax(most, fabs(get(dtype, p.diff, i)));
            }
        CHECK_INT(cnn_gradient_norm(dtype, SEGMENTS, p.segment, 0, &norm), CNN_OK);
        CHECK_NEAR(norm, sqrt(square), 1e-11 * norm);
        CHECK_INT(cnn_gradient_norm(dtype, SEGMENTS, p.segment, 1, &norm), CNN_OK);
        CHECK_NEAR(norm, most, 0.0);

        const double guard = get(dtype, p.diff, 1), before = get(dtype, p.segment[3].diff_weights, 20002);
        CHECK_INT(cnn_gradient_scale(dtype, SEGMENTS, p.segment, 0.5), CNN_OK);
        CHECK_NEAR(get(dtype, p.segment[3].diff_weights, 20002), 0.5 * before, 0.0);
        CHECK_NEAR(get(dtype, p.diff, 1), guard, 0.0); /* behind the first segment, which has one element */
        release(&p);
    }
}

/* Squares that float cannot hold, and NaN in the last element of a tail. */
static void norms_of_extremes(void)
{
    for (int64_t n = 1; n <= 40; n++) {
        float g[40];
        for (int64_t i = 0; i < n; i++) g[i] = i % 2 ? 1e30f : -1e30f;
        cnn_segment segment = {NULL, g, n, 0, 1.0, 0.0};
        double norm;
        CHECK_INT(cnn_gradient_norm(CNN_FLOAT32, 1, &segment, 0, &norm), CNN_OK);
        CHECK_NEAR(norm, 1e30 * sqrt((double)n), 1e24);
        for (int infinity = 0; infinity < 2; infinity++) {
            g[n - 1] = NAN;
            CHECK_INT(cnn_gradient_norm(CNN_FLOAT32, 1, &segment, infinity, &norm), CNN_OK);
            CHECK(isnan(norm));
            g[n - 1] = -INFINITY;
            CHECK_INT(cnn_gradient_norm(CNN_FLOAT32, 1, &segment, infinity, &norm), CNN_OK);
            CHECK(isinf(norm) && norm > 0.0);
        }
    }
}

static void penalties_are_right(void)
{
    const double l1 = 0.25, l2 = 0.125; /* exact in float */
    for (int type = 0; type < 2; type++) {
        const cnn_dtype dtype = type ? CNN_FLOAT64 : CNN_FLOAT32;
        parameters p, before;
        REQUIRE(make(&p, dtype, 5) && make(&before, dtype, 5));
        set(dtype, p.segment[2].weights, 3, 0.0);
        set(dtype, before.segment[2].weights, 3, 0.0);
        double expected = 0.0, penalty, again;
        int64_t i = 0;
        for (int s = 0; s < SEGMENTS; s++, i += GUARD)
            for (int64_t j = 0; j < lengths[s]; j++, i++) {
                const double w = get(dtype, p.weights, i);
                expected += l1 * fabs(w) + l2 * w * w;
            }
        CHECK_INT(cnn_penalty(dtype, SEGMENTS, p.segment, l1, l2, 0, &penalty), CNN_OK);
        CHECK_NEAR(penalty, expected, 1e-10 * expected);
        CHECK(memcmp(p.diff, before.diff, (size_t)p.total * width(dtype)) == 0);
        CHECK_INT(cnn_penalty(dtype, SEGMENTS, p.segment, l1, l2, 1, &again), CNN_OK);
        CHECK(again == penalty);
        i = 0;
        for (int s = 0; s < SEGMENTS; s++) {
            for (int64_t j = 0; j < lengths[s] + GUARD; j++, i++) {
                const double w = get(dtype, p.weights, i);
                const double added = j < lengths[s] ? l1 * (w > 0.0 ? 1.0 : w < 0.0 ? -1.0 : 0.0) + 2.0 * l2 * w : 0.0;
                CHECK_NEAR(get(dtype, p.diff, i), get(dtype, before.diff, i) + added, 2e-7);
            }
        }
        release(&p);
        release(&before);
    }
}

static void soft_threshold_shrinks(void)
{
    for (int type = 0; type < 2; type++) {
        const cnn_dtype dtype = type ? CNN_FLOAT64 : CNN_FLOAT32;
        parameters p, before;
        REQUIRE(make(&p, dtype, 5) && make(&before, dtype, 5));
        CHECK_INT(cnn_soft_threshold(dtype, SEGMENTS, p.segment, 0.25), CNN_OK);
        int64_t i = 0;
        for (int s = 0; s < SEGMENTS; s++)
            for (int64_t j = 0; j < lengths[s] + GUARD; j++, i++) {
                const double w = get(dtype, before.weights, i), t = 0.25 * p.segment[s].lr_scale;
                const double shrunk = w > t ? w - t : w < -t ? w + t : 0.0;
                CHECK_NEAR(get(dtype, p.weights, i), j < lengths[s] ? shrunk : w, 1e-7);
            }
        release(&p);
        release(&before);
    }
}

/* ---- the same bits, bad input --------------------------------------------------------------------------------------- */

static void same_bits_on_any_threads(void)
{
    const int32_t before = cnn_get_num_threads();
    cnn_update u = base;
    u.rule = CNN_ADAM;
    parameters one;
    double norm[2], penalty[2];
    REQUIRE(make(&one, CNN_FLOAT32, 5));
    cnn_set_num_threads(1);
    CHECK_INT(cnn_gradient_norm(CNN_FLOAT32, SEGMENTS, one.segment, 0, &norm[0]), CNN_OK);
    CHECK_INT(cnn_penalty(CNN_FLOAT32, SEGMENTS, one.segment, 0.1, 0.2, 1, &penalty[0]), CNN_OK);
    CHECK_INT(cnn_update_apply(&u, CNN_FLOAT32, SEGMENTS, one.segment, one.state), CNN_OK);
    for (int32_t threads = 2; threads <= 4 && cnn_set_num_threads(threads) == CNN_OK; threads++) {
        parameters p;
        REQUIRE(make(&p, CNN_FLOAT32, 5));
        CHECK_INT(cnn_gradient_norm(CNN_FLOAT32, SEGMENTS, p.segment, 0, &norm[1]), CNN_OK);
        CHECK_INT(cnn_penalty(CNN_FLOAT32, SEGMENTS, p.segment, 0.1, 0.2, 1, &penalty[1]), CNN_OK);
        CHECK_INT(cnn_update_apply(&u, CNN_FLOAT32, SEGMENTS, p.segment, p.state), CNN_OK);
        CHECK(norm[0] == norm[1]);
        CHECK(penalty[0] == penalty[1]);
        CHECK(memcmp(one.weights, p.weights, (size_t)p.total * sizeof(float)) == 0);
        release(&p);
    }
    cnn_set_num_threads(before);
    release(&one);
}

static void refused(cnn_status status, const char *message)
{
    CHECK_INT(status, CNN_INVALID_VALUE);
    const bool told = strstr(cnn_last_error(), message) != NULL;
    if (!told) fprintf(stderr, "\"%s\" does not say \"%s\"\n", cnn_last_error(), message);
    CHECK(told);
}

/* Applies `u` to one segment of four numbers. */
static cnn_status apply(cnn_update u, void *state0, void *state1, void *state2)
{
    static float w[4], g[4];
    const cnn_segment segment = {w, g, 4, 0, 1.0, 0.0};
    void *state[3] = {state0, state1, state2};
    return cnn_update_apply(&u, CNN_FLOAT32, 1, &segment, state);
}

static void bad_rules_are_refused(void)
{
    float a[4] = {0}, b[4] = {0};
#define REFUSED(rule_, change, message)      \
    do {                                     \
        cnn_update u = base;                 \
        u.rule = rule_;                      \
        change;                              \
        refused(apply(u, a, b, NULL), message); \
    } while (0)
    REFUSED(CNN_SGD, u.learning_rate = -1, "lr: got -1");
    REFUSED(CNN_SGD, u.learning_rate = (double)NAN, "lr: got");
    REFUSED(CNN_SGD, u.momentum = -0.5, "momentum: got -0.5");
    REFUSED(CNN_SGD, u.dampening = (double)INFINITY, "dampening: got inf");
    REFUSED(CNN_SGD, u.nesterov = 1, "nesterov: needs a momentum above 0");
    REFUSED(CNN_SGD, (u.nesterov = 1, u.momentum = 0.9, u.dampening = 0.1), "nesterov: needs a dampening of 0");
    REFUSED(CNN_SGD, u.step = 0, "step: got 0");
    REFUSED(CNN_ADAM, u.beta1 = 1, "beta1: got 1");
    REFUSED(CNN_ADAMW, u.beta2 = -0.1, "beta2: got -0.1");
    REFUSED(CNN_ADAM, u.eps = -1e-8, "eps: got -1e-08");
    REFUSED(CNN_RMSPROP, u.beta2 = -1, "alpha: got -1");
    REFUSED(CNN_RMSPROP, u.momentum = -1, "momentum: got -1");
    REFUSED(CNN_RMSPROP, u.centered = 1, "state: buffer 2 is NULL");
    REFUSED((cnn_update_rule)7, u.step = 1, "rule: got 7");
#undef REFUSED
    cnn_update u = base;
    u.rule = CNN_ADAM;
    refused(apply(u, NULL, b, NULL), "state: buffer 0 is NULL");
    refused(apply(u, a, NULL, NULL), "state: buffer 1 is NULL");
    u.rule = CNN_SGD;
    CHECK_INT(apply(u, NULL, NULL, NULL), CNN_OK);
    refused(cnn_update_apply(NULL, CNN_FLOAT32, 0, NULL, NULL), "update: got NULL");
}

static void bad_segments_are_refused(void)
{
    float w[4] = {0}, g[4] = {0};
    void *state[3] = {w, w, w};
    cnn_update u = base;
    u.rule = CNN_ADAM;
#define REFUSED(message, ...)                                                          \
    do {                                                                               \
        const cnn_segment segment = {__VA_ARGS__};                                     \
        refused(cnn_update_apply(&u, CNN_FLOAT32, 1, &segment, state), "segments: " message); \
    } while (0)
    REFUSED("length: got -1", w, g, -1, 0, 1.0, 0.0);
    REFUSED("length: got", w, g, INT64_MAX, 0, 1.0, 0.0);
    REFUSED("weights: got NULL", NULL, g, 4, 0, 1.0, 0.0);
    REFUSED("diff_weights: got NULL", w, NULL, 4, 0, 1.0, 0.0);
    REFUSED("state_offset: got -4", w, g, 4, -4, 1.0, 0.0);
    REFUSED("lr_scale: got -1", w, g, 4, 0, -1.0, 0.0);
    REFUSED("weight_decay: got -1", w, g, 4, 0, 1.0, -1.0);
#undef REFUSED
    double result;
    const cnn_segment segment = {w, NULL, 4, 0, 1.0, 0.0};
    refused(cnn_gradient_norm(CNN_FLOAT32, 1, &segment, 0, &result), "diff_weights: got NULL");
    refused(cnn_gradient_norm(CNN_FLOAT32, 1, NULL, 0, &result), "segments: got NULL");
    refused(cnn_gradient_norm(CNN_FLOAT32, -1, &segment, 0, &result), "num_segments: got -1");
    refused(cnn_gradient_norm(CNN_FLOAT32, 1, &segment, 0, NULL), "norm: got NULL");
    refused(cnn_penalty(CNN_FLOAT32, 1, &segment, 0.1, 0.1, 1, &result), "diff_weights: got NULL");
    refused(cnn_penalty(CNN_FLOAT32, 1, &segment, -0.1, 0.1, 0, &result), "l1: got -0.1");
    refused(cnn_penalty(CNN_FLOAT32, 1, &segment, 0.1, (double)NAN, 0, &result), "l2: got");
    refused(cnn_penalty(CNN_FLOAT32, 1, &segment, 0.1, 0.1, 0, NULL), "penalty: got NULL");
    refused(cnn_soft_threshold(CNN_FLOAT32, 1, &segment, -1.0), "threshold: got -1");
    CHECK_INT(cnn_gradient_scale(CNN_INT64, 0, NULL, 1.0), CNN_INVALID_TYPE);
    CHECK(strstr(cnn_last_error(), "dtype: got int64") != NULL);
}

/* Nothing to do is done. */
static void nothing_is_fine(void)
{
    double result = -1.0;
    cnn_update u = base;
    u.rule = CNN_ADAM;
    CHECK_INT(cnn_update_apply(&u, CNN_FLOAT32, 0, NULL, NULL), CNN_OK);
    const cnn_segment empty = {NULL, NULL, 0, 0, 1.0, 0.0};
    CHECK_INT(cnn_update_apply(&u, CNN_FLOAT32, 1, &empty, NULL), CNN_OK);
    CHECK_INT(cnn_gradient_norm(CNN_FLOAT32, 1, &empty, 0, &result), CNN_OK);
    CHECK(result == 0.0);
    CHECK_INT(cnn_penalty(CNN_FLOAT64, 1, &empty, 1.0, 1.0, 1, &result), CNN_OK);
    CHECK(result == 0.0);
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {
        TEST(sgd_follows_the_formulas),
        TEST(adam_follows_the_formulas),
        TEST(rmsprop_follows_the_formulas),
        TEST(centered_rmsprop_survives_constant_gradients),
        TEST(norms_are_right),
        TEST(norms_of_extremes),
        TEST(penalties_are_right),
        TEST(soft_threshold_shrinks),
        TEST(same_bits_on_any_threads),
        TEST(bad_rules_are_refused),
        TEST(bad_segments_are_refused),
        TEST(nothing_is_fine),
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
