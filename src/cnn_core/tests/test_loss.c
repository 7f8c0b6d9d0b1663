/* Cross-entropy, NLL, MSE, L1 and binary cross-entropy with logits. */
#include "one_node.h"

static const cnn_reduction NONE = CNN_REDUCE_NONE, MEAN = CNN_REDUCE_MEAN, SUM = CNN_REDUCE_SUM;

/* ---- classes ------------------------------------------------------------------------------------------------------ */

/* Scores of this shape and their targets, without class weights. */
static node_case classes(cnn_op op, cnn_shape scores, cnn_reduction reduction)
{
    node_case c = {.op = op, .num_sources = 3, .src = {{.kind = NODE_INPUT, .shape = scores}}};
    c.attributes.loss.reduction = reduction;
    c.attributes.loss.ignore_index = -100;
    c.src[1] = (node_source){.kind = NODE_CLASSES, .shape = {.rank = scores.rank - 1}, .classes = scores.dim[1]};
    c.src[1].shape.dim[0] = scores.dim[0];
    for (int32_t i = 2; i < scores.rank; i++) c.src[1].shape.dim[i - 1] = scores.dim[i];
    return c;
}

static node_case draw_classes(cnn_op op)
{
    cnn_shape scores = {(int32_t)node_between(2, 4), {node_between(1, 9), node_between(1, 70)}};
    for (int32_t i = 2; i < scores.rank; i++) scores.dim[i] = node_between(1, 6);
    node_case c = classes(op, scores, (cnn_reduction)node_between(NONE, SUM));
    if (node_random() % 3 == 0) c.attributes.loss.ignore_index = 0;
    if (op == CNN_OP_CROSS_ENTROPY && node_random() % 2 == 0)
        c.attributes.loss.label_smoothing = (double)node_between(0, 10) / 10.0;
    if (node_random() % 4 == 0) c.src[0].kind = NODE_PARAMETER;
    if (node_random() % 2 == 0)
        c.src[2] = (node_source){.kind = NODE_CONSTANT, .shape = {1, {scores.dim[1]}}, .levels = 5};
    return c;
}

static void cross_entropy_agrees_with_reference(void)
{
    for (int i = 0; i < 200; i++) {
        node_random_state = (uint64_t)(1000 + i);
        const node_case c = draw_classes(CNN_OP_CROSS_ENTROPY);
        node_check(&c, 4e-6);
    }
    const node_case large = classes(CNN_OP_CROSS_ENTROPY, (cnn_shape){4, {2, 21, 33, 35}}, MEAN);
    node_check(&large, 4e-6);
}

static void nll_agrees_with_reference(void)
{
    for (int i = 0; i < 100; i++) {
        node_random_state = (uint64_t)(2000 + i);
        const node_case c = draw_classes(CNN_OP_NLL);
        node_check(&c, 4e-6);
    }
}

/* Binds logits and targets of a (n, c) case, runs both passes with diff_dst = 1. */
static cnn_status run_on(node_run *run, const node_case *c, bool reference, const float *logits, const int64_t *targets)
{
    CNN_TRY(node_build(c, CNN_FLOAT32, reference, run));
    node_prepare(c, run, 1);
    if (logits != NULL) memcpy(run->src[0].data, logits, (size_t)run->src[0].count * sizeof *logits);
    if (targets != NULL) memcpy(run->src[1].data, targets, (size_t)run->src[1].count * sizeof *targets);
    node_fill(run->dtype, run->dst.diff, run->dst.count, 1.0);
    return node_run_both(run);
}

/* Logits far out: differences between them are what counts, exactly. */
static void cross_entropy_is_stable(void)
{
    const node_case c = classes(CNN_OP_CROSS_ENTROPY, (cnn_shape){2, {4, 3}}, NONE);
    const float inf = INFINITY;
    const float logits[] = {1e30f, -1e30f, 0, 30000, 30001, 29999, -2e5f, -2e5f, -2e5f, 5, -inf, 5};
    const int64_t targets[] = {1, 1, 2, 0};
    const double losses[] = {2e30, 0.40760596444, 1.09861228867, 0.69314718056};
    const double slopes[] = {1, -1, 0, 0.2447284711, -0.3347590473, 0.0900305732, 1 / 3., 1 / 3., -2 / 3., -0.5, 0, 0.5};
    for (int reference = 0; reference < 2; reference++) {
        node_run run;
        CHECK_INT(run_on(&run, &c, reference != 0, logits, targets), CNN_OK);
        CHECK(node_get(CNN_FLOAT32, run.dst.data, 0) > 1.99e30);
        for (int i = 1; i < 4; i++) CHECK_NEAR(node_get(CNN_FLOAT32, run.dst.data, i), losses[i], 1e-6);
        for (int i = 0; i < 12; i++) CHECK_NEAR(node_get(CNN_FLOAT32, run.src[0].diff, i), slopes[i], 1e-6);
        node_release(&run);
    }
}

/* By torch.nn.functional.cross_entropy, weight=[1, 2, 3, 4], label_smoothing=0.1, the last target ignored. */
static void cross_entropy_is_torchs(void)
{
    node_case c = classes(CNN_OP_CROSS_ENTROPY, (cnn_shape){2, {3, 4}}, MEAN);
    c.src[2] = (node_source){.kind = NODE_CONSTANT, .shape = {1, {4}}};
    c.attributes.loss.label_smoothing = 0.1;
    const float logits[] = {0.5f, -1, 2, 0, 1, 1.5f, -0.5f, 0.25f, 3, 2, 1, 0}, weights[] = {1, 2, 3, 4};
    const int64_t targets[] = {2, 1, -100};
    for (int reference = 0; reference < 2; reference++) {
        node_run run;
        REQUIRE(node_build(&c, CNN_FLOAT32, reference != 0, &run) == CNN_OK);
        node_prepare(&c, &run, 1);
        memcpy(run.src[0].data, logits, sizeof logits);
        memcpy(run.src[1].data, targets, sizeof targets);
        memcpy(run.src[2].data, weights, sizeof weights);
        node_fill(CNN_FLOAT32, run.dst.diff, 1, 1.0);
        CHECK_INT(node_run_both(&run), CNN_OK);
        const double gradient[] = {
            0.0884823786, 0.0108587381, -0.1360410455, 0.0366999288,
            0.1175996637, -0.1678673267, 0.0123556826, 0.0379119805,
            0, 0, 0, 0,
        };
        CHECK_NEAR(node_get(CNN_FLOAT32, run.dst.data, 0), 0.6269517342, 1e-6);
        for (int i = 0; i < 12; i++) CHECK_NEAR(node_get(CNN_FLOAT32, run.src[0].diff, i), gradient[i], 1e-6);
        node_release(&run);
    }
}

/* As torch: the mean over targets that are all ignored is 0 / 0, their gradients are 0. */
static void all_ignored_gives_nan(void)
{
    const cnn_op ops[] = {CNN_OP_CROSS_ENTROPY, CNN_OP_NLL};
    const int64_t targets[] = {-100, -100, -100};
    for (int i = 0; i < 4; i++) {
        const node_case c = classes(ops[i % 2], (cnn_shape){2, {3, 5}}, MEAN);
        node_run run;
        CHECK_INT(run_on(&run, &c, i / 2 != 0, NULL, targets), CNN_OK);
        CHECK(isnan(node_get(CNN_FLOAT32, run.dst.data, 0)));
        for (int k = 0; k < 15; k++) CHECK_NEAR(node_get(CNN_FLOAT32, run.src[0].diff, k), 0, 0);
        node_release(&run);
    }
}

static void targets_out_of_range_are_refused(void)
{
    const cnn_op ops[] = {CNN_OP_CROSS_ENTROPY, CNN_OP_NLL};
    const int64_t wrong[] = {5, -1, INT64_MAX, INT64_MIN, -101};
    for (int i = 0; i < 4; i++)
        for (size_t k = 0; k < sizeof wrong / sizeof wrong[0]; k++) {
            node_case c = classes(ops[i % 2], (cnn_shape){4, {2, 5, 3, 4}}, MEAN);
            node_run run;
            int64_t targets[24] = {0};
            targets[12 + 7] = wrong[k];
            CHECK_INT(run_on(&run, &c, i / 2 != 0, NULL, targets), CNN_INVALID_VALUE);
            char text[128];
            (void)snprintf(text, sizeof text, "targets: got %lld at (1, 1, 3), expected a class from 0 to 4 (of 5)",
                           (long long)wrong[k]);
            CHECK(strstr(cnn_last_error(), text) != NULL);
            node_release(&run);

            /* Targets that turn wrong between the passes. */
            CHECK_INT(node_build(&c, CNN_FLOAT32, i / 2 != 0, &run), CNN_OK);
            node_prepare(&c, &run, 1);
            CHECK_INT(cnn_context_forward(run.context), CNN_OK);
            ((int64_t *)run.src[1].data)[19] = wrong[k];
            CHECK_INT(cnn_context_backward(run.context), CNN_INVALID_VALUE);
            node_release(&run);
        }
}

/* ---- pairs -------------------------------------------------------------------------------------------------------- */

static node_case pair(cnn_op op, cnn_shape shape, cnn_reduction reduction)
{
    node_case c = {.op = op, .num_sources = op == CNN_OP_BCE_WITH_LOGITS ? 4 : 2};
    c.src[0] = c.src[1] = (node_source){.kind = NODE_INPUT, .shape = shape};
    c.attributes.loss.reduction = reduction;
    return c;
}

static node_source weights_for(const cnn_shape *shape)
{
    const int32_t dropped = node_random() % 3 == 0 ? (int32_t)node_between(0, shape->rank) : 0;
    node_source weights = {.kind = NODE_CONSTANT, .shape = {.rank = shape->rank - dropped}};
    for (int32_t i = 0; i < weights.shape.rank; i++)
        weights.shape.dim[i] = node_random() % 3 == 0 ? 1 : shape->dim[i + dropped];
    return weights;
}

static void pairs_agree_with_reference(cnn_op op, double tolerance)
{
    for (int i = 0; i < 150; i++) {
        node_random_state = (uint64_t)(3000 + i);
        cnn_shape shape = {.rank = (int32_t)node_between(0, 6)};
        for (int32_t k = 0; k < shape.rank; k++) shape.dim[k] = node_between(1, shape.rank > 2 ? 6 : 600);
        if (cnn_shape_count(&shape) > 20000) continue;
        node_case c = pair(op, shape, (cnn_reduction)node_between(NONE, SUM));
        for (int s = 0; s < 2; s++) c.src[s].kind = node_random() % 4 == 0 ? NODE_PARAMETER : NODE_INPUT;
        if (op == CNN_OP_BCE_WITH_LOGITS)
            for (int s = 2; s < 4; s++)
                if (node_random() % 2 == 0) c.src[s] = weights_for(&shape);
        node_check(&c, tolerance);
    }
    const node_case large = pair(op, (cnn_shape){4, {2, 21, 33, 35}}, MEAN);
    node_check(&large, tolerance);
}

static void mse_agrees_with_reference(void)
{
    pairs_agree_with_reference(CNN_OP_MSE, 2e-6);
}

static void l1_agrees_with_reference(void)
{
    pairs_agree_with_reference(CNN_OP_L1, 2e-6);
}

static void bce_agrees_with_reference(void)
{
    pairs_agree_with_reference(CNN_OP_BCE_WITH_LOGITS, 4e-6);
}

static void bce_is_stable(void)
{
    node_case c = pair(CNN_OP_BCE_WITH_LOGITS, (cnn_shape){1, {10}}, NONE);
    c.num_sources = 2;
    const float logits[] = {200, -200, 200, -200, 1e30f, -1e30f, 30, -30, 0, NAN};
    const float targets[] = {1, 0, 0, 1, 1, 0, 1, 0, 0.5f, 1};
    const double small = 9.357622968840e-14;
    const double losses[] = {0, 0, 200, 200, 0, 0, small, small, 0.69314718056, (double)NAN};
    const double slopes[] = {0, 0, 1, -1, 0, 0, -small, small, 0, (double)NAN};
    for (int reference = 0; reference < 2; reference++) {
        node_run run;
        REQUIRE(node_build(&c, CNN_FLOAT32, reference != 0, &run) == CNN_OK);
        node_prepare(&c, &run, 1);
        memcpy(run.src[0].data, logits, sizeof logits);
        memcpy(run.src[1].data, targets, sizeof targets);
        node_fill(CNN_FLOAT32, run.dst.diff, run.dst.count, 1.0);
        CHECK_INT(node_run_both(&run), CNN_OK);
        for (int i = 0; i < 10; i++) {
            const double scale = isnan(losses[i]) ? 1.0 : 1e-6 * losses[i];
            CHECK_NEAR(node_get(CNN_FLOAT32, run.dst.data, i), losses[i], scale + 1e-30);
            CHECK_NEAR(node_get(CNN_FLOAT32, run.src[0].diff, i), slopes[i], 1e-6 * fabs(slopes[i]) + 1e-30);
        }
        node_release(&run);
    }
}

/* ---- all of them -------------------------------------------------------------------------------------------------- */

static void gradients_match_central_differences(void)
{
    for (int i = 0; i < 12; i++) {
        node_random_state = (uint64_t)(4000 + i);
        const node_case c = draw_classes(i % 2 == 0 ? CNN_OP_CROSS_ENTROPY : CNN_OP_NLL);
        node_check_gradient(&c);
    }
    const cnn_op ops[] = {CNN_OP_MSE, CNN_OP_L1, CNN_OP_BCE_WITH_LOGITS};
    for (int i = 0; i < 9; i++) {
        node_case c = pair(ops[i / 3], (cnn_shape){4, {2, 3, 2, 2}}, (cnn_reduction)(i % 3));
        if (ops[i / 3] == CNN_OP_BCE_WITH_LOGITS)
            c.src[2] = c.src[3] = (node_source){.kind = NODE_CONSTANT, .shape = {3, {3, 1, 1}}};
        node_check_gradient(&c);
    }
}

static void bits_do_not_depend_on_threads(void)
{
    const cnn_op ops[] = {CNN_OP_CROSS_ENTROPY, CNN_OP_NLL, CNN_OP_MSE, CNN_OP_L1, CNN_OP_BCE_WITH_LOGITS};
    for (int i = 0; i < 5; i++) {
        const cnn_shape shape = {4, {3, 19, 43, 47}};
        const node_case c = i < 2 ? classes(ops[i], shape, MEAN) : pair(ops[i], shape, MEAN);
        node_check_threads(&c);
    }
    node_case strided = classes(CNN_OP_CROSS_ENTROPY, (cnn_shape){3, {3, 19, 1999}}, SUM);
    node_check_threads(&strided);
}

/* The mean over nothing is 0, its gradients are empty, and so is what is not reduced. */
static void empty_batches_lose_nothing(void)
{
    const cnn_op ops[] = {CNN_OP_CROSS_ENTROPY, CNN_OP_NLL, CNN_OP_MSE, CNN_OP_L1, CNN_OP_BCE_WITH_LOGITS};
    const cnn_shape shapes[] = {{2, {0, 5}}, {4, {0, 5, 2, 3}}, {4, {2, 5, 0, 3}}, {3, {0, 5, 0}}};
    const cnn_reduction reductions[] = {NONE, MEAN, SUM};
    for (int i = 0; i < 5 * 4 * 3 * 2; i++) {
        const cnn_op op = ops[i % 5];
        const cnn_shape shape = shapes[i / 5 % 4];
        const cnn_reduction reduction = reductions[i / 20 % 3];
        const node_case c = i % 5 < 2 ? classes(op, shape, reduction) : pair(op, shape, reduction);
        node_run run;
        CHECK_INT(run_on(&run, &c, i / 60 != 0, NULL, NULL), CNN_OK);
        CHECK_INT(run.dst.count, reduction == NONE ? 0 : 1);
        if (reduction != NONE) CHECK_NEAR(node_get(CNN_FLOAT32, run.dst.data, 0), 0, 0);
        node_release(&run);
    }
}

static void bad_arguments_are_named(void)
{
    node_case c = classes(CNN_OP_CROSS_ENTROPY, (cnn_shape){2, {3, 4}}, MEAN);
    c.attributes.loss.label_smoothing = 1.5;
    node_check_refused(&c, CNN_INVALID_VALUE, "cross_entropy: label_smoothing: got 1.5, expected 0 to 1");
    c.attributes.loss.label_smoothing = (double)NAN;
    node_check_refused(&c, CNN_INVALID_VALUE, "cross_entropy: label_smoothing: got");
    c = classes(CNN_OP_CROSS_ENTROPY, (cnn_shape){2, {3, 4}}, (cnn_reduction)7);
    node_check_refused(&c, CNN_INVALID_VALUE, "cross_entropy: reduction: got 7");
    c = classes(CNN_OP_CROSS_ENTROPY, (cnn_shape){2, {3, 4}}, MEAN);
    c.src[1].shape.dim[0] = 2;
    node_check_refused(&c, CNN_INVALID_VALUE, "cross_entropy: targets: got shape (2,), expected (3,)");
    c.src[1].kind = NODE_INPUT;
    node_check_refused(&c, CNN_INVALID_TYPE, "cross_entropy: targets: got float32, expected int64");
    c = classes(CNN_OP_CROSS_ENTROPY, (cnn_shape){2, {3, 0}}, MEAN);
    node_check_refused(&c, CNN_INVALID_VALUE, "cross_entropy: logits: got shape (3, 0), expected at least one class");
    c = classes(CNN_OP_NLL, (cnn_shape){5, {3, 2, 2, 2, 2}}, MEAN);
    node_check_refused(&c, CNN_INVALID_VALUE, "nll: log_probs: got shape (3, 2, 2, 2, 2), expected (n, c)");
    c = classes(CNN_OP_CROSS_ENTROPY, (cnn_shape){2, {3, 4}}, MEAN);
    c.src[2] = (node_source){.kind = NODE_CONSTANT, .shape = {1, {3}}};
    node_check_refused(&c, CNN_INVALID_VALUE, "cross_entropy: weight: got shape (3,), expected (4,)");

    c = pair(CNN_OP_MSE, (cnn_shape){2, {3, 4}}, MEAN);
    c.src[1].shape = (cnn_shape){1, {4}};
    node_check_refused(&c, CNN_INVALID_VALUE, "mse: targets: got shape (4,), expected (3, 4)");
    c = pair(CNN_OP_BCE_WITH_LOGITS, (cnn_shape){2, {3, 4}}, MEAN);
    c.src[2] = (node_source){.kind = NODE_CONSTANT, .shape = {3, {2, 3, 4}}};
    node_check_refused(&c, CNN_INVALID_VALUE, "bce_with_logits: weight: got shape (2, 3, 4), expected one that broadcasts to");
    c.src[2].kind = NODE_ABSENT;
    c.src[3] = (node_source){.kind = NODE_CONSTANT, .shape = {1, {3}}};
    node_check_refused(&c, CNN_INVALID_VALUE, "bce_with_logits: pos_weight: got shape (3,)");

    /* Weights are constants. */
    for (int s = 2; s < 4; s++)
        for (int reference = 0; reference < 2; reference++) {
            c = pair(CNN_OP_BCE_WITH_LOGITS, (cnn_shape){2, {3, 4}}, MEAN);
            c.src[s] = (node_source){.kind = NODE_PARAMETER, .shape = {1, {4}}};
            node_run run;
            CHECK_INT(run_on(&run, &c, reference != 0, NULL, NULL), CNN_UNSUPPORTED);
            CHECK(strstr(cnn_last_error(), s == 2 ? "weight: a loss's weights" : "pos_weight: a loss's") != NULL);
            node_release(&run);
        }
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {
        TEST(cross_entropy_agrees_with_reference), TEST(nll_agrees_with_reference),
        TEST(cross_entropy_is_stable),             TEST(cross_entropy_is_torchs),
        TEST(all_ignored_gives_nan),               TEST(targets_out_of_range_are_refused),
        TEST(mse_agrees_with_reference),           TEST(l1_agrees_with_reference),
        TEST(bce_agrees_with_reference),           TEST(bce_is_stable),
        TEST(gradients_match_central_differences), TEST(bits_do_not_depend_on_threads),
        TEST(empty_batches_lose_nothing),          TEST(bad_arguments_are_named),
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
