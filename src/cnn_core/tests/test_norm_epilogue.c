/* Batch normalization with an addition and an activation behind it, against the same operations one after the other:
 * the same bits, forward and backward, at any thread count. Nodes are made by hand, as the planner would make them. */
#include <stdlib.h>

#include "base/shape.h"
#include "ops/norm.h"
#include "test.h"

enum { ADDEND = NORM_NUM_BATCHES + 1, SOURCES };

/* Fused, dst lies where the source does (without backward), or the gradient of the source where diff_dst does. */
enum { SHARES_SRC = 1, SHARES_ADDEND };

typedef struct fused_case {
    cnn_shape shape;
    bool adds, activates;
    cnn_activation activation;
    double alpha;
    bool evaluation, no_affine;
    bool no_diff_src, no_diff_addend, no_diff_parameters;
    bool forward_only;
    int shares; /* not 0: memory: SHARES_SRC, SHARES_ADDEND */
} fused_case;

/* The memory of one run, the fused node's or that of the single ones. */
typedef struct fused_run {
    int64_t count, channels;
    float *src[SOURCES], *diff_src[SOURCES]; /* of the fused node's sources; diff_src as wanted */
    float *dst, *diff_dst;
    void *saved, *workspace;
} fused_run;

static uint64_t random_state = 1;

static float random_number(void)
{
    float sum = 0.0f;
    for (int i = 0; i < 4; i++) {
        random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        sum += (float)(random_state >> 40) / 16777216.0f - 0.5f;
    }
    return 1.7f * sum;
}

static float *new_floats(int64_t n, float mean, float std)
{
    float *made = malloc((size_t)n * sizeof *made);
    for (int64_t i = 0; i < n; i++) made[i] = mean + std * random_number();
    return made;
}

static float *new_filled(int64_t n, float value)
{
    float *made = malloc((size_t)n * sizeof *made);
    for (int64_t i = 0; i < n; i++) made[i] = value;
    return made;
}

static cnn_node norm_node(const fused_case *c, bool fused)
{
    cnn_node node = {.row = &cnn_op_batch_norm,
                     .kernels = cnn_kernels_get(),
                     .dtype = CNN_FLOAT32,
                     .num_sources = fused && c->adds ? SOURCES : NORM_NUM_BATCHES,
                     .dst_shape = c->shape};
    node.attributes.norm.eps = 1e-5;
    node.attributes.norm.momentum = 0.1;
    node.attributes.norm.training = !c->evaluation;
    for (int i = NORM_SRC; i <= NORM_RUNNING_VAR; i++) {
        const bool parameter = i == NORM_WEIGHTS || i == NORM_BIAS;
        node.present[i] = i == NORM_SRC || (parameter ? !c->no_affine : true);
        node.src_shape[i] = i == NORM_SRC ? c->shape : (cnn_shape){.rank = 1, .dim = {c->shape.dim[1]}};
        node.wanted[i] = node.present[i] && (parameter ? !c->no_diff_parameters : i == NORM_SRC && !c->no_diff_src);
    }
    if (!fused) return node;
    node.epilogue = (cnn_epilogue){
        .adds = c->adds, .activates = c->activates, .activation = {.kind = c->activation, .alpha = c->alpha}};
    if (c->adds) {
        node.present[ADDEND] = true;
        node.src_shape[ADDEND] = c->shape;
        node.wanted[ADDEND] = !c->no_diff_addend;
    }
    return node;
}

static fused_run new_run(const fused_case *c, const cnn_node *node, int32_t threads)
{
    fused_run r = {.count = cnn_shape_count(&c->shape), .channels = c->shape.dim[1]};
    random_state = 17;
    r.src[NORM_SRC] = new_floats(r.count, 0.7f, 2.0f);
    r.src[NORM_SRC][r.count / 3] = NAN; /* a channel of NaN must come out the same, too */
    r.diff_dst = new_floats(r.count, 0.1f, 1.0f);
    r.src[ADDEND] = new_floats(r.count, 1.0f, 2.0f);
    r.src[ADDEND][r.count / 5] = NAN;
    r.src[NORM_WEIGHTS] = new_floats(r.channels, 1.5f, 0.5f);
    r.src[NORM_BIAS] = new_floats(r.channels, 0.5f, 2.0f);
    r.src[NORM_RUNNING_MEAN] = new_floats(r.channels, 0.5f, 0.2f);
    r.src[NORM_RUNNING_VAR] = new_filled(r.channels, 3.0f);
    r.dst = new_filled(r.count, NAN);
    for (int i = NORM_SRC; i <= NORM_BIAS; i++)
        r.diff_src[i] = new_filled(i == NORM_SRC ? r.count : r.channels, i == NORM_SRC ? NAN : 0.5f);
    r.diff_src[ADDEND] = new_filled(r.count, NAN);
    const size_t forward = node->row->workspace(node, false, threads);
    const size_t backward = node->row->workspace(node, true, threads);
    const size_t bytes = forward > backward ? forward : backward;
    r.saved = cnn_aligned_alloc(node->row->saved(node));
    r.workspace = cnn_aligned_alloc(bytes);
    memset(r.workspace, 0xff, bytes);
    return r;
}

static void release(fused_run *r)
{
    for (int i = 0; i < SOURCES; i++) {
        free(r->src[i]);
        free(r->diff_src[i]);
    }
    free(r->dst);
    free(r->diff_dst);
    cnn_aligned_free(r->saved);
    cnn_aligned_free(r->workspace);
}

static void norm_pass_of(const cnn_node *node, fused_run *r, const float *diff_dst, float *dst, int32_t threads,
                         bool backward)
{
    void *src[SOURCES], *diff_src[SOURCES];
    for (int i = 0; i < SOURCES; i++) {
        src[i] = node->present[i] ? r->src[i] : NULL;
        diff_src[i] = node->wanted[i] ? r->diff_src[i] : NULL;
    }
    const cnn_call call = {.node = node,
                           .src = src,
                           .dst = dst,
                           .diff_dst = diff_dst,
                           .diff_src = diff_src,
                           .saved = r->saved,
                           .workspace = r->workspace,
                           .threads = threads};
    REQUIRE((backward ? node->row->backward : node->row->forward)(&call) == CNN_OK);
}

static void activation_pass(const fused_case *c, const float *src, float *dst, const float *diff_dst, float *diff_src)
{
    cnn_node node = {.row = &cnn_op_activation, .kernels = cnn_kernels_get(), .dst_shape = c->shape};
    node.attributes.activation = (struct cnn_activation_attributes){.kind = c->activation, .alpha = c->alpha};
    const cnn_call call = {.node = &node,
                           .src = &(void *){(void *)src},
                           .dst = dst,
                           .diff_dst = diff_dst,
                           .diff_src = &(void *){diff_src},
                           .threads = 1};
    REQUIRE((diff_dst == NULL ? node.row->forward : node.row->backward)(&call) == CNN_OK);
}

/* The operations one after the other, on one thread. */
static fused_run run_apart(const fused_case *c)
{
    const cnn_node node = norm_node(c, false);
    fused_run r = new_run(c, &node, 1);
    norm_pass_of(&node, &r, NULL, r.dst, 1, false);
    float *before = malloc((size_t)r.count * sizeof *before);
    for (int64_t i = 0; c->adds && i < r.count; i++) r.dst[i] += r.src[ADDEND][i];
    memcpy(before, r.dst, (size_t)r.count * sizeof *before);
    if (c->activates) activation_pass(c, before, r.dst, NULL, NULL);
    if (!c->forward_only) {
        float *g = r.diff_dst;
        if (c->activates) activation_pass(c, before, NULL, r.diff_dst, g = r.diff_src[ADDEND]);
        norm_pass_of(&node, &r, g, r.dst, 1, true);
        memmove(r.diff_src[ADDEND], g, (size_t)r.count * sizeof *g);
    }
    free(before);
    return r;
}

static fused_run run_fused(const fused_case *c, int32_t threads)
{
    const cnn_node node = norm_node(c, true);
    CHECK(node.row->fuses(&node, &node.epilogue, !c->forward_only));
    fused_run r = new_run(c, &node, threads);
    const int shared = c->shares == SHARES_ADDEND ? ADDEND : NORM_SRC;
    const size_t bytes = (size_t)r.count * sizeof *r.dst;
    if (c->forward_only) {
        float *dst = c->shares != 0 ? r.src[shared] : r.dst;
        norm_pass_of(&node, &r, NULL, dst, threads, false);
        memmove(r.dst, dst, bytes);
        return r;
    }
    norm_pass_of(&node, &r, NULL, r.dst, threads, false);
    float *given = malloc(bytes);
    memcpy(given, r.diff_dst, bytes);
    if (c->shares != 0) memcpy(r.diff_src[shared], given, bytes);
    norm_pass_of(&node, &r, c->shares != 0 ? r.diff_src[shared] : r.diff_dst, r.dst, threads, true);
    CHECK(memcmp(given, r.diff_dst, bytes) == 0); /* the row's activates_again */
    free(given);
    return r;
}

static bool same_bits(const char *what, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (isnan(b[i]) ? !isnan(a[i]) : memcmp(&a[i], &b[i], sizeof a[i]) != 0) {
            fprintf(stderr, "%s[%lld] is %.9g, apart %.9g\n", what, (long long)i, (double)a[i], (double)b[i]);
            return false;
        }
    return true;
}

#define STREAMED (4 << 20) /* floats */

static void check_case(const fused_case *c)
{
    static const char *const names[SOURCES] = {
        [NORM_SRC] = "diff_src", [NORM_WEIGHTS] = "diff_weights", [NORM_BIAS] = "diff_bias", [ADDEND] = "diff_addend"};
    fused_run apart = run_apart(c);
    bool ok = true;
    /* What streams past the caches takes long: one thread and four. */
    for (int32_t threads = 1; threads <= 4; threads += apart.count >= STREAMED ? 3 : 1) {
        fused_run fused = run_fused(c, threads);
        ok = ok && same_bits("dst", fused.dst, apart.dst, apart.count);
        const cnn_node node = norm_node(c, true);
        for (int i = 0; i < SOURCES && !c->forward_only; i++) {
            const int64_t n = i == NORM_SRC || i == ADDEND ? apart.count : apart.channels;
            if (node.wanted[i]) ok = ok && same_bits(names[i], fused.diff_src[i], apart.diff_src[i], n);
        }
        release(&fused);
    }
    char text[CNN_SHAPE_TEXT];
    if (!ok)
        fprintf(stderr, "  in %s, adds %d, activation %d, evaluation %d\n", cnn_shape_text(&c->shape, text), c->adds,
                c->activates ? (int)c->activation : -1, c->evaluation);
    CHECK(ok);
    release(&apart);
}

static const cnn_shape shapes[] = {{4, {3, 5, 4, 6}},     {4, {2, 64, 9, 7}}, {4, {2, 1, 7, 9}}, {2, {37, 19}},
                                   {4, {4, 37, 41, 43}},  {4, {3, 515, 5, 5}}, {4, {2, 24, 61, 60}}, {2, {600, 256}},
                                   {4, {2, 48, 210, 211}}};

static void fuses_activations_and_additions(void)
{
    static const fused_case kinds[] = {
        {.activates = true, .activation = CNN_RELU},
        {.activates = true, .activation = CNN_RELU6},
        {.activates = true, .activation = CNN_LEAKY_RELU, .alpha = 0.1},
        {.activates = true, .activation = CNN_LEAKY_RELU, .alpha = 0.0},
        {.adds = true},
        {.adds = true, .activates = true, .activation = CNN_RELU},
        {.adds = true, .activates = true, .activation = CNN_RELU6},
        {.adds = true, .activates = true, .activation = CNN_LEAKY_RELU, .alpha = 0.2},
    };
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
            for (int evaluation = 0; evaluation < 2; evaluation++) {
                fused_case c = kinds[k];
                c.shape = shapes[s];
                c.evaluation = evaluation == 1;
                check_case(&c);
            }
}

static void fuses_whatever_is_wanted(void)
{
    for (int bits = 0; bits < 64; bits++) {
        fused_case c = {.shape = {4, {2, 19, 11, 5}}, .activates = true, .activation = CNN_RELU};
        c.adds = (bits & 1) != 0;
        c.no_diff_src = (bits & 2) != 0;
        c.no_diff_addend = (bits & 4) != 0;
        c.no_diff_parameters = (bits & 8) != 0;
        c.evaluation = (bits & 16) != 0;
        c.no_affine = (bits & 32) != 0;
        check_case(&c);
    }
}

static void fuses_any_activation_without_backward(void)
{
    for (int kind = 0; kind < CNN_ACTIVATION_COUNT; kind++)
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
            if (cnn_shape_count(&shapes[s]) >= STREAMED && kind % 4 != 0) continue;
            const fused_case c = {.shape = shapes[s],
                                  .adds = s % 2 == 0,
                                  .activates = true,
                                  .activation = (cnn_activation)kind,
                                  .alpha = 0.75,
                                  .evaluation = s % 3 == 0,
                                  .forward_only = true};
            check_case(&c);
        }
}

static void shares_memory(void)
{
    for (int bits = 0; bits < 16; bits++)
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
            fused_case c = {.shape = shapes[s], .activates = true, .activation = CNN_RELU, .shares = SHARES_SRC};
            c.adds = (bits & 1) != 0;
            c.evaluation = (bits & 2) != 0;
            c.forward_only = (bits & 4) != 0;
            if (bits & 8) {
                if (!c.adds) continue;
                c.shares = SHARES_ADDEND;
            }
            check_case(&c);
        }
}

/* A graph of the two alone: its output and the gradient of it are the caller's, and nothing of their size is the plan's. */
static void keeps_no_copies_behind_an_activation(void)
{
    const cnn_shape shape = {4, {2, 16, 33, 31}};
    const cnn_attributes norm = {.norm = {.eps = 1e-5, .training = true, .momentum = 0.1}};
    const cnn_attributes relu = {.activation = {.kind = CNN_RELU}};
    const cnn_plan_options options = {.backward = 1, .repeat = 1};
    cnn_graph *graph = NULL;
    cnn_plan *plan = NULL;
    cnn_value x, y;
    CHECK(cnn_graph_create(CNN_FLOAT32, &graph) == CNN_OK);
    CHECK(cnn_graph_input(graph, CNN_FLOAT32, &shape, &x) == CNN_OK);
    CHECK(cnn_graph_require_gradient(graph, x) == CNN_OK);
    CHECK(cnn_graph_apply(graph, CNN_OP_BATCH_NORM, &norm, 1, &x, &y) == CNN_OK);
    CHECK(cnn_graph_apply(graph, CNN_OP_ACTIVATION, &relu, 1, &y, &y) == CNN_OK);
    CHECK(cnn_graph_output(graph, y) == CNN_OK);
    CHECK(cnn_plan_create(graph, &options, &plan) == CNN_OK);
    const size_t planned = cnn_plan_bytes(plan, CNN_MEMORY_ACTIVATIONS) + cnn_plan_bytes(plan, CNN_MEMORY_GRADIENTS);
    CHECK(planned < (size_t)cnn_shape_count(&shape) * sizeof(float));
    cnn_plan_free(plan);
    cnn_graph_free(graph);
}

static bool is_fused(fused_case c)
{
    const cnn_node node = norm_node(&c, true);
    return node.row->fuses(&node, &node.epilogue, !c.forward_only);
}

static void refuses_what_it_cannot(void)
{
    const cnn_shape image = {4, {2, 3, 4, 5}}, signal = {3, {2, 3, 4}};
    CHECK(is_fused((fused_case){.shape = image, .activates = true, .activation = CNN_SILU, .forward_only = true}));
    CHECK(!is_fused((fused_case){.shape = image, .activates = true, .activation = CNN_SILU}));
    CHECK(!is_fused((fused_case){.shape = image, .activates = true, .activation = CNN_LEAKY_RELU, .alpha = -0.1}));
    CHECK(!is_fused((fused_case){.shape = signal, .activates = true, .activation = CNN_RELU}));
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {
        TEST(fuses_activations_and_additions),
        TEST(fuses_whatever_is_wanted),
        TEST(fuses_any_activation_without_backward),
        TEST(shares_memory),
        TEST(keeps_no_copies_behind_an_activation),
        TEST(refuses_what_it_cannot),
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
