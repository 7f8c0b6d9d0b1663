/* Graphs: gradients that meet, memory that is shared, calls that come at the wrong time. */
#include <stdlib.h>

#include "graph/arena.h"
#include "graph/plan.h"
#include "tests/test.h"

static const cnn_shape vector = {.rank = 2, .dim = {1, 4}};

static cnn_value affine(cnn_graph *graph, cnn_value x, double alpha)
{
    const cnn_attributes attributes = {.affine = {.alpha = alpha}};
    cnn_value result = CNN_NONE;
    (void)cnn_graph_apply(graph, CNN_OP_AFFINE, &attributes, 1, &x, &result);
    return result;
}

static cnn_value two(cnn_graph *graph, cnn_op op, cnn_value a, cnn_value b)
{
    const cnn_attributes attributes = {.affine = {.alpha = 1.0}};
    const cnn_value sources[2] = {a, b};
    cnn_value result = CNN_NONE;
    (void)cnn_graph_apply(graph, op, &attributes, 2, sources, &result);
    return result;
}

typedef struct run {
    cnn_graph *graph;
    cnn_plan *plan;
    cnn_context *context;
    cnn_value x, w;
} run;

static run begin(void)
{
    run r = {0};
    (void)cnn_graph_create(CNN_FLOAT32, &r.graph);
    (void)cnn_graph_input(r.graph, CNN_FLOAT32, &vector, &r.x);
    (void)cnn_graph_parameter(r.graph, &vector, &r.w);
    (void)cnn_graph_require_gradient(r.graph, r.x);
    (void)cnn_graph_require_gradient(r.graph, r.w);
    return r;
}

static void plan(run *r, bool repeat)
{
    const cnn_plan_options options = {.backward = 1, .repeat = repeat};
    if (cnn_plan_create(r->graph, &options, &r->plan) == CNN_OK) (void)cnn_context_create(r->plan, &r->context);
}

static void end(run *r)
{
    cnn_context_free(r->context);
    cnn_plan_free(r->plan);
    cnn_graph_free(r->graph);
}

/* y = (3x)(3x) + x + w w + x: x is read three times, 3x twice by one node, w twice and its gradient accumulates. */
static void sums_gradients(void)
{
    for (int repeat = 0; repeat < 2; repeat++) {
        run r = begin();
        const cnn_value a = affine(r.graph, r.x, 3.0);
        const cnn_value square = two(r.graph, CNN_OP_MULTIPLY, a, a);
        const cnn_value ww = two(r.graph, CNN_OP_MULTIPLY, r.w, r.w);
        const cnn_value sum = two(r.graph, CNN_OP_ADD, two(r.graph, CNN_OP_ADD, square, r.x), ww);
        const cnn_value y = two(r.graph, CNN_OP_ADD, sum, r.x);
        REQUIRE(cnn_graph_output(r.graph, y) == CNN_OK);
        plan(&r, repeat);
        REQUIRE(r.context != NULL);
        float x[4] = {1, -2, 0.5f, 3}, w[4] = {1, 2, 3, 4}, dy[4] = {1, 1, 2, -1}, out[4], dx[4], dw[4] = {10, 10, 10, 10};
        for (int i = 0; i < 4; i++) out[i] = dx[i] = NAN;
        REQUIRE(cnn_context_bind(r.context, r.x, x, dx) == CNN_OK);
        REQUIRE(cnn_context_bind(r.context, r.w, w, dw) == CNN_OK);
        REQUIRE(cnn_context_bind(r.context, y, out, dy) == CNN_OK);
        CHECK_INT(cnn_context_backward(r.context), CNN_INVALID_STATE);
        REQUIRE(cnn_context_forward(r.context) == CNN_OK);
        REQUIRE(cnn_context_backward(r.context) == CNN_OK);
        for (int i = 0; i < 4; i++) {
            CHECK_NEAR(out[i], 9 * x[i] * x[i] + 2 * x[i] + w[i] * w[i], 1e-5);
            CHECK_NEAR(dx[i], dy[i] * (18 * x[i] + 2), 1e-5);
            CHECK_NEAR(dw[i], 10 + dy[i] * 2 * w[i], 1e-5);
        }
        CHECK_INT(cnn_context_backward(r.context), repeat ? CNN_OK : CNN_INVALID_STATE);
        for (int i = 0; repeat && i < 4; i++) {
            CHECK_NEAR(dx[i], dy[i] * (18 * x[i] + 2), 1e-5);
            CHECK_NEAR(dw[i], 10 + dy[i] * 4 * w[i], 1e-5);
        }
        end(&r);
    }
}

/* Slices add to the gradient that is there: of x[:, 1:3], x[:, ::2] and x[:, ::-1]. */
static void slices_add_gradients(void)
{
    static const int64_t start[3] = {1, 0, 3}, step[3] = {1, 2, -1}, size[3] = {2, 2, 4};
    run r = begin();
    cnn_value taken[3];
    for (int k = 0; k < 3; k++) {
        const cnn_attributes attributes = {.slice = {.start = {0, start[k]}, .step = {1, step[k]}, .size = {1, size[k]}}};
        REQUIRE(cnn_graph_apply(r.graph, CNN_OP_SLICE, &attributes, 1, &r.x, &taken[k]) == CNN_OK);
        REQUIRE(cnn_graph_output(r.graph, taken[k]) == CNN_OK);
    }
    const cnn_value twice = affine(r.graph, r.x, 2.0); /* the last to read x: its gradient comes first */
    REQUIRE(cnn_graph_output(r.graph, twice) == CNN_OK);
    plan(&r, false);
    REQUIRE(r.context != NULL);
    float x[4] = {1, 2, 3, 4}, dx[4] = {NAN, NAN, NAN, NAN}, w[4] = {0}, dw[4], out[4][4], dy[4][4], expected[4];
    for (int i = 0; i < 4; i++) {
        for (int k = 0; k < 4; k++) dy[k][i] = (float)(1 << (4 * k + i)); /* whatever is added is seen in the sum */
        expected[i] = 2 * dy[3][i];
    }
    for (int k = 0; k < 3; k++)
        for (int64_t i = 0; i < size[k]; i++) expected[start[k] + i * step[k]] += dy[k][i];
    REQUIRE(cnn_context_bind(r.context, r.x, x, dx) == CNN_OK && cnn_context_bind(r.context, r.w, w, dw) == CNN_OK);
    for (int k = 0; k < 3; k++) REQUIRE(cnn_context_bind(r.context, taken[k], out[k], dy[k]) == CNN_OK);
    REQUIRE(cnn_context_bind(r.context, twice, out[3], dy[3]) == CNN_OK);
    REQUIRE(cnn_context_forward(r.context) == CNN_OK && cnn_context_backward(r.context) == CNN_OK);
    for (int i = 0; i < 4; i++) {
        CHECK_NEAR(out[2][i], x[3 - i], 0);
        CHECK_NEAR(dx[i], expected[i], 0);
    }
    end(&r);
}

/* An output that is read further inside: its gradient comes from the caller and from within. */
static void takes_gradients_of_inner_outputs(void)
{
    run r = begin();
    const cnn_value inner = two(r.graph, CNN_OP_MULTIPLY, r.x, r.w), outer = affine(r.graph, inner, 5.0);
    REQUIRE(cnn_graph_output(r.graph, inner) == CNN_OK && cnn_graph_output(r.graph, outer) == CNN_OK);
    plan(&r, false);
    REQUIRE(r.context != NULL);
    float x[4] = {1, 2, 3, 4}, w[4] = {2, 2, 2, 2}, dx[4], dw[4] = {0}, a[4], b[4], da[4] = {1, 1, 1, 1}, db[4] = {1, 0, 0, 0};
    (void)cnn_context_bind(r.context, r.x, x, dx);
    (void)cnn_context_bind(r.context, r.w, w, dw);
    (void)cnn_context_bind(r.context, inner, a, da);
    (void)cnn_context_bind(r.context, outer, b, db);
    REQUIRE(cnn_context_forward(r.context) == CNN_OK && cnn_context_backward(r.context) == CNN_OK);
    CHECK_NEAR(a[2], 6, 0);
    CHECK_NEAR(b[2], 30, 0);
    CHECK_NEAR(dx[0], 12, 0);
    CHECK_NEAR(dx[1], 2, 0);
    CHECK_NEAR(da[0], 1, 0); /* the caller's memory is only read */
    end(&r);
}

/* Of an input that leads nowhere the gradient is zero, of a parameter it stays what it was. */
static void leaves_unused_alone(void)
{
    run r = begin();
    cnn_value other;
    REQUIRE(cnn_graph_input(r.graph, CNN_FLOAT32, &vector, &other) == CNN_OK);
    REQUIRE(cnn_graph_require_gradient(r.graph, other) == CNN_OK);
    const cnn_value y = affine(r.graph, r.x, 2.0);
    REQUIRE(cnn_graph_output(r.graph, y) == CNN_OK);
    plan(&r, false);
    REQUIRE(r.context != NULL);
    float x[4] = {1, 2, 3, 4}, w[4] = {0}, out[4], dy[4] = {1, 1, 1, 1}, dx[4], dw[4] = {7, 7, 7, 7}, unused[4] = {5, 5, 5, 5};
    (void)cnn_context_bind(r.context, r.x, x, dx);
    (void)cnn_context_bind(r.context, r.w, w, dw);
    (void)cnn_context_bind(r.context, other, x, unused);
    (void)cnn_context_bind(r.context, y, out, dy);
    REQUIRE(cnn_context_forward(r.context) == CNN_OK && cnn_context_backward(r.context) == CNN_OK);
    CHECK_NEAR(unused[3], 0, 0);
    CHECK_NEAR(dw[3], 7, 0);
    CHECK_NEAR(dx[3], 2, 0);
    end(&r);
}

static void refuses_what_is_wrong(void)
{
    run r = begin();
    cnn_value v;
    const cnn_shape negative = {.rank = 1, .dim = {-1}}, huge = {.rank = 2, .dim = {INT64_MAX / 2, INT64_MAX / 2}};
    const cnn_shape deep = {.rank = CNN_MAX_RANK + 1};
    CHECK_INT(cnn_graph_input(r.graph, CNN_FLOAT32, &negative, &v), CNN_INVALID_VALUE);
    CHECK_INT(cnn_graph_input(r.graph, CNN_FLOAT32, &huge, &v), CNN_INVALID_VALUE);
    CHECK_INT(cnn_graph_input(r.graph, CNN_FLOAT32, &deep, &v), CNN_INVALID_VALUE);
    CHECK_INT(cnn_graph_input(r.graph, CNN_FLOAT64, &vector, &v), CNN_INVALID_TYPE);
    CHECK_INT(cnn_graph_output(r.graph, r.x), CNN_INVALID_VALUE);
    CHECK_INT(cnn_graph_output(r.graph, 99), CNN_INVALID_VALUE);
    const cnn_value sources[2] = {r.x, 99};
    CHECK_INT(cnn_graph_apply(r.graph, CNN_OP_ADD, NULL, 2, sources, &v), CNN_INVALID_VALUE);
    CHECK_INT(cnn_graph_apply(r.graph, CNN_OP_ADD, NULL, 1, sources, &v), CNN_INVALID_VALUE);
    CHECK(strncmp(cnn_last_error(), "add: ", 5) == 0);
    CHECK_INT(cnn_graph_apply(r.graph, (cnn_op)CNN_OP_COUNT, NULL, 1, sources, &v), CNN_INVALID_VALUE);
    CHECK_INT(cnn_plan_create(r.graph, NULL, &r.plan), CNN_INVALID_STATE);
    const cnn_value y = affine(r.graph, r.x, 2.0);
    REQUIRE(cnn_graph_output(r.graph, y) == CNN_OK);
    plan(&r, false);
    REQUIRE(r.context != NULL);
    CHECK_INT(cnn_context_forward(r.context), CNN_INVALID_STATE); /* nothing is bound */
    CHECK_INT(cnn_context_bind(r.context, 99, NULL, NULL), CNN_INVALID_VALUE);
    end(&r);
    cnn_context_free(NULL);
    cnn_plan_free(NULL);
    cnn_graph_free(NULL);
}

/* Buffers of random lifetimes never overlap while both live, and take less than their sum. */
static void places_buffers(void)
{
    enum { COUNT = 60 };
    cnn_buffer buffers[COUNT];
    size_t offsets[COUNT], total = 0, all = 0;
    unsigned state = 1;
    for (int i = 0; i < COUNT; i++) {
        state = state * 1664525u + 1013904223u;
        const int32_t first = (int32_t)(state >> 16) % 40;
        buffers[i] = (cnn_buffer){(state >> 8) % 5000, first, first + (int32_t)(state >> 24) % 9, &offsets[i]};
        all += cnn_size_align(buffers[i].bytes);
    }
    const cnn_allocator own = {0};
    REQUIRE(cnn_arena_place(&own, buffers, COUNT, &total) == CNN_OK);
    int overlaps = 0;
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < i; j++) {
            const cnn_buffer *a = &buffers[i], *b = &buffers[j];
            overlaps += a->first <= b->last && b->first <= a->last && *a->offset < *b->offset + b->bytes &&
                        *b->offset < *a->offset + a->bytes;
        }
    CHECK_INT(overlaps, 0);
    CHECK(total < all / 2);
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {TEST(sums_gradients), TEST(slices_add_gradients), TEST(takes_gradients_of_inner_outputs),
                                      TEST(leaves_unused_alone), TEST(refuses_what_is_wrong), TEST(places_buffers)};
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
