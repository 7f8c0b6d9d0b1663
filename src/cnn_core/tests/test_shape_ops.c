/* Reshape, add, multiply, affine, concat, slice. */
#include "one_node.h"

static node_kind any_kind(void)
{
    return node_random() % 4 == 0 ? NODE_PARAMETER : NODE_INPUT;
}

static cnn_shape any_shape(int32_t rank, int64_t most)
{
    cnn_shape shape = {.rank = rank};
    for (int32_t i = 0; i < rank; i++) shape.dim[i] = node_between(1, most);
    return shape;
}

/* ---- reshape ------------------------------------------------------------------------------------------------------ */

static node_case reshaping(cnn_shape from, cnn_shape to)
{
    return (node_case){.op = CNN_OP_RESHAPE,
                       .attributes.reshape.shape = to,
                       .num_sources = 1,
                       .src = {{.kind = NODE_INPUT, .shape = from}}};
}

static void reshape_agrees_with_reference(void)
{
    const cnn_shape shapes[] = {
        {4, {2, 6, 5, 7}},  {2, {2, 210}},      {2, {2, -1}},         {1, {420}},        {4, {2, 3, 10, 7}},
        {4, {4, 3, 5, 7}},  {4, {2, 210, 1, 1}}, {4, {2, 1, 14, 15}}, {4, {420, 1, 1, 1}}, {3, {2, 6, 35}},
        {6, {1, 2, 3, 2, 5, 7}}, {4, {6, 2, 7, 5}}, {4, {1, 1, 1, 420}},
    };
    const size_t count = sizeof shapes / sizeof shapes[0];
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < count; k++) {
            if (i == 2) continue; /* the open size is for targets only */
            node_case c = reshaping(shapes[i], shapes[k]);
            node_check(&c, 0);
            c.src[0].kind = NODE_PARAMETER;
            node_check(&c, 1e-7);
        }
    const node_case large = reshaping((cnn_shape){4, {3, 67, 19, 23}}, (cnn_shape){2, {3, 67 * 19 * 23}});
    const node_case scalar = reshaping((cnn_shape){.rank = 0}, (cnn_shape){4, {1, 1, 1, 1}});
    node_check(&large, 0);
    node_check(&scalar, 0);
    node_check_threads(&large);
}

static void flatten_is_in_channel_order(void)
{
    const node_case c = reshaping((cnn_shape){4, {1, 2, 1, 3}}, (cnn_shape){2, {1, 6}});
    node_run run;
    REQUIRE(node_build(&c, CNN_FLOAT32, false, &run) == CNN_OK);
    node_prepare(&c, &run, 1);
    const float channels_last[] = {0, 3, 1, 4, 2, 5};
    memcpy(run.src[0].data, channels_last, sizeof channels_last);
    CHECK_INT(node_run_both(&run), CNN_OK);
    for (int i = 0; i < 6; i++) CHECK_NEAR(((const float *)run.dst.data)[i], i, 0);
    node_release(&run);
}

/* ---- broadcasting ------------------------------------------------------------------------------------------------- */

/* A shape that broadcasts to `shape`: some axes 1, some leading ones left out. */
static cnn_shape shrink(const cnn_shape *shape)
{
    const int32_t dropped = node_random() % 3 == 0 ? (int32_t)node_between(0, shape->rank) : 0;
    cnn_shape shrunk = {.rank = shape->rank - dropped};
    for (int32_t i = 0; i < shrunk.rank; i++) shrunk.dim[i] = node_random() % 3 == 0 ? 1 : shape->dim[i + dropped];
    return shrunk;
}

static node_case binary(cnn_op op, cnn_shape a, cnn_shape b)
{
    return (node_case){.op = op,
                       .attributes.affine.alpha = 1.0,
                       .num_sources = 2,
                       .src = {{.kind = NODE_INPUT, .shape = a}, {.kind = NODE_INPUT, .shape = b}}};
}

static void broadcasting_agrees_with_reference(void)
{
    for (int i = 0; i < 400; i++) {
        node_random_state = (uint64_t)(1000 + i);
        const cnn_shape shape = any_shape((int32_t)node_between(0, 6), i % 2 == 0 ? 5 : 11);
        if (cnn_shape_count(&shape) > 20000) continue;
        node_case c = binary(i % 2 == 0 ? CNN_OP_ADD : CNN_OP_MULTIPLY, shrink(&shape), shrink(&shape));
        c.attributes.affine.alpha = i % 4 == 0 ? -0.75 : 1.0;
        c.src[0].kind = any_kind();
        c.src[1].kind = any_kind();
        node_check(&c, 1e-5);
    }
}

/* The shapes that networks use, large enough for several tasks, blocks and vectors. */
static const cnn_shape pairs[][2] = {
    {{4, {2, 33, 19, 23}}, {4, {2, 33, 19, 23}}}, /* residual */
    {{4, {2, 33, 19, 23}}, {4, {2, 33, 1, 1}}},   /* squeeze and excitation */
    {{4, {2, 33, 19, 23}}, {4, {1, 33, 1, 1}}},   /* per channel */
    {{4, {2, 33, 19, 23}}, {3, {33, 1, 1}}},
    {{4, {2, 33, 19, 23}}, {4, {2, 1, 19, 23}}},  /* spatial attention */
    {{4, {2, 33, 19, 23}}, {.rank = 0}},
    {{4, {2, 33, 19, 23}}, {1, {1}}},
    {{4, {2, 33, 19, 23}}, {4, {1, 33, 19, 23}}}, /* position embedding */
    {{4, {2, 33, 19, 1}}, {4, {2, 33, 1, 23}}},   /* outer product */
    {{4, {3, 3, 41, 43}}, {4, {1, 3, 1, 1}}},
    {{2, {257, 129}}, {1, {129}}},
    {{2, {257, 129}}, {2, {257, 1}}},
    {{2, {3, 40000}}, {2, {3, 1}}},
    {{1, {70000}}, {.rank = 0}},
};

static void common_broadcasts_agree_with_reference(void)
{
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        for (int swapped = 0; swapped < 2; swapped++)
            for (int op = 0; op < 2; op++) {
                node_case c = binary(op == 0 ? CNN_OP_ADD : CNN_OP_MULTIPLY, pairs[i][swapped], pairs[i][1 - swapped]);
                node_check(&c, 2e-5);
                c.src[swapped].kind = NODE_PARAMETER;
                node_check(&c, 2e-5);
            }
}

static void bits_do_not_depend_on_threads(void)
{
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        const node_case c = binary(CNN_OP_MULTIPLY, pairs[i][0], pairs[i][1]);
        node_check_threads(&c);
    }
}

static void affine_agrees_with_reference(void)
{
    for (int i = 0; i < 30; i++) {
        node_random_state = (uint64_t)(2000 + i);
        const node_case c = {.op = CNN_OP_AFFINE,
                             .attributes.affine = {.alpha = -1.5, .beta = 0.25},
                             .num_sources = 1,
                             .src = {{.kind = any_kind(), .shape = any_shape((int32_t)node_between(0, 6), 6)}}};
        node_check(&c, 1e-6);
    }
}

/* ---- concat, slice ------------------------------------------------------------------------------------------------ */

static void concat_agrees_with_reference(void)
{
    for (int i = 0; i < 100; i++) {
        node_random_state = (uint64_t)(3000 + i);
        const cnn_shape shape = any_shape((int32_t)node_between(1, 6), 5);
        const int32_t axis = (int32_t)node_between(0, shape.rank - 1);
        node_case c = {.op = CNN_OP_CONCAT, .num_sources = (int)node_between(1, NODE_SOURCES)};
        c.attributes.axis.axis = node_random() % 2 == 0 ? axis : axis - shape.rank;
        for (int s = 0; s < c.num_sources; s++) {
            c.src[s] = (node_source){.kind = any_kind(), .shape = shape};
            c.src[s].shape.dim[axis] = node_between(0, 9);
        }
        node_check(&c, 1e-7);
    }
    node_case unet = {.op = CNN_OP_CONCAT,
                      .attributes.axis.axis = 1,
                      .num_sources = 2,
                      .src = {{.kind = NODE_INPUT, .shape = {4, {2, 37, 29, 31}}},
                              {.kind = NODE_INPUT, .shape = {4, {2, 21, 29, 31}}}}};
    node_check(&unet, 0);
    node_check_threads(&unet);
}

static node_case slicing(cnn_shape from)
{
    node_case c = {.op = CNN_OP_SLICE, .num_sources = 1, .src = {{.kind = NODE_INPUT, .shape = from}}};
    for (int32_t axis = 0; axis < from.rank; axis++) {
        c.attributes.slice.step[axis] = 1;
        c.attributes.slice.size[axis] = from.dim[axis];
    }
    return c;
}

static void slice_agrees_with_reference(void)
{
    for (int i = 0; i < 200; i++) {
        node_random_state = (uint64_t)(4000 + i);
        node_case c = slicing(any_shape((int32_t)node_between(0, 6), 8));
        c.src[0].kind = any_kind();
        for (int32_t axis = 0; axis < c.src[0].shape.rank; axis++) {
            const int64_t dim = c.src[0].shape.dim[axis], start = node_between(0, dim - 1);
            const int64_t step = node_between(1, 3) * (node_random() % 2 == 0 ? 1 : -1);
            const int64_t room = (step > 0 ? dim - 1 - start : start) / (step > 0 ? step : -step) + 1;
            if (node_random() % 3 == 0) continue;
            c.attributes.slice.start[axis] = start;
            c.attributes.slice.step[axis] = step;
            c.attributes.slice.size[axis] = node_between(node_random() % 8 == 0 ? 0 : 1, room);
        }
        node_check(&c, 1e-7);
    }
    node_case crop = slicing((cnn_shape){4, {2, 35, 40, 41}});
    crop.attributes.slice.start[2] = 3;
    crop.attributes.slice.size[2] = 33;
    crop.attributes.slice.start[3] = 40;
    crop.attributes.slice.step[3] = -1;
    node_check(&crop, 0);
    node_check_threads(&crop);
}

/* ---- all of them -------------------------------------------------------------------------------------------------- */

static void gradients_match_central_differences(void)
{
    const node_case cases[] = {
        reshaping((cnn_shape){4, {2, 3, 2, 4}}, (cnn_shape){2, {2, -1}}),
        binary(CNN_OP_ADD, (cnn_shape){4, {2, 3, 2, 4}}, (cnn_shape){4, {2, 3, 1, 1}}),
        binary(CNN_OP_MULTIPLY, (cnn_shape){4, {2, 3, 2, 4}}, (cnn_shape){4, {2, 3, 1, 1}}),
        binary(CNN_OP_MULTIPLY, (cnn_shape){3, {3, 1, 4}}, (cnn_shape){2, {5, 1}}),
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) node_check_gradient(&cases[i]);
    node_case flipped = slicing((cnn_shape){4, {2, 3, 4, 5}});
    flipped.attributes.slice.start[2] = 3;
    flipped.attributes.slice.step[2] = -2;
    flipped.attributes.slice.size[2] = 2;
    node_check_gradient(&flipped);
}

static void nothing_in_gives_nothing_out(void)
{
    const node_case cases[] = {
        reshaping((cnn_shape){4, {0, 3, 2, 4}}, (cnn_shape){2, {0, 24}}),
        binary(CNN_OP_ADD, (cnn_shape){4, {0, 3, 2, 4}}, (cnn_shape){4, {1, 3, 1, 1}}),
        binary(CNN_OP_MULTIPLY, (cnn_shape){2, {0, 3}}, (cnn_shape){2, {0, 3}}),
        slicing((cnn_shape){4, {0, 3, 2, 4}}),
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) node_check(&cases[i], 0);
}

static void bad_arguments_are_named(void)
{
    node_case c = reshaping((cnn_shape){2, {3, 4}}, (cnn_shape){2, {5, -1}});
    node_check_refused(&c, CNN_INVALID_VALUE, "reshape: shape: got (5, -1), which the 12 elements");
    c.attributes.reshape.shape = (cnn_shape){2, {-1, -1}};
    node_check_refused(&c, CNN_INVALID_VALUE, "reshape: shape: got (-1, -1)");
    c.attributes.reshape.shape = (cnn_shape){3, {INT64_MAX, INT64_MAX, 4}};
    node_check_refused(&c, CNN_INVALID_VALUE, "reshape: shape: got");
    c.attributes.reshape.shape.rank = 7;
    node_check_refused(&c, CNN_INVALID_VALUE, "reshape: shape: got 7 dimensions");
    c = reshaping((cnn_shape){2, {0, 4}}, (cnn_shape){2, {0, -1}});
    node_check_refused(&c, CNN_INVALID_VALUE, "reshape: shape: got (0, -1)");

    c = binary(CNN_OP_ADD, (cnn_shape){2, {2, 3}}, (cnn_shape){1, {4}});
    node_check_refused(&c, CNN_INVALID_VALUE, "add: other: got shape (4,), expected one that broadcasts with (2, 3)");
    c = binary(CNN_OP_MULTIPLY, (cnn_shape){2, {INT64_C(1) << 40, 1}}, (cnn_shape){2, {1, INT64_C(1) << 40}});
    node_check_refused(&c, CNN_INVALID_VALUE, "too large");
    c = binary(CNN_OP_MULTIPLY, (cnn_shape){1, {4}}, (cnn_shape){1, {4}});
    c.src[1].kind = NODE_CLASSES;
    node_check_refused(&c, CNN_INVALID_TYPE, "multiply: other: got int64, expected float32");

    c = (node_case){.op = CNN_OP_CONCAT, .attributes.axis.axis = 2, .num_sources = 2};
    c.src[0] = c.src[1] = (node_source){.kind = NODE_INPUT, .shape = {2, {2, 3}}};
    node_check_refused(&c, CNN_INVALID_VALUE, "concat: dim: got 2");
    c.attributes.axis.axis = 1;
    c.src[1].shape.dim[0] = 4;
    node_check_refused(&c, CNN_INVALID_VALUE, "concat: tensors: got shapes (2, 3) and (4, 3)");

    c = slicing((cnn_shape){1, {5}});
    c.attributes.slice.size[0] = 6;
    node_check_refused(&c, CNN_INVALID_VALUE, "slice: slice: got 6 elements from 0 in steps of 1 along dim 0");
    c.attributes.slice.size[0] = 3;
    c.attributes.slice.step[0] = -1;
    node_check_refused(&c, CNN_INVALID_VALUE, "slice: slice: got 3 elements from 0 in steps of -1");
    c.attributes.slice.step[0] = INT64_MIN;
    node_check_refused(&c, CNN_INVALID_VALUE, "slice: slice: got 3 elements");
    c.attributes.slice.step[0] = 0;
    node_check_refused(&c, CNN_INVALID_VALUE, "slice: slice: got 3 elements");
    c.attributes.slice.size[0] = -1;
    node_check_refused(&c, CNN_INVALID_VALUE, "slice: slice: got -1 elements");
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {
        TEST(reshape_agrees_with_reference),
        TEST(flatten_is_in_channel_order),
        TEST(broadcasting_agrees_with_reference),
        TEST(common_broadcasts_agree_with_reference),
        TEST(bits_do_not_depend_on_threads),
        TEST(affine_agrees_with_reference),
        TEST(concat_agrees_with_reference),
        TEST(slice_agrees_with_reference),
        TEST(gradients_match_central_differences),
        TEST(nothing_in_gives_nothing_out),
        TEST(bad_arguments_are_named),
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
