/* Foreign memory: every stride, alignment and byte order arrives as the same dense tensor. */
#include <stdint.h>
#include <stdlib.h>

#include "base/shape.h"
#include "tests/test.h"

/* A view of float (n, c, h, w) with these byte strides. */
static cnn_view view_of(const void *data, const int64_t dim[4], const int64_t stride[4])
{
    cnn_view view = {.data = data, .shape = {.rank = 4}, .kind = 'f', .itemsize = 4};
    for (int i = 0; i < 4; i++) {
        view.shape.dim[i] = dim[i];
        view.stride[i] = stride[i];
    }
    return view;
}

static float element(const cnn_view *view, int64_t n, int64_t c, int64_t h, int64_t w)
{
    float value;
    memcpy(&value, (const char *)view->data + n * view->stride[0] + c * view->stride[1] + h * view->stride[2] +
                       w * view->stride[3], sizeof value);
    return value;
}

static void check_import(const cnn_view *view)
{
    const cnn_image i = cnn_image_of(&view->shape);
    float *dst = malloc((size_t)(i.n * i.c * i.h * i.w) * sizeof *dst + 1);
    REQUIRE(dst != NULL);
    for (int channels_last = 0; channels_last < 2; channels_last++) {
        REQUIRE(cnn_view_import(view, CNN_FLOAT32, channels_last, dst) == CNN_OK);
        int64_t at = 0, wrong = 0;
        int64_t stride[CNN_MAX_RANK];
        cnn_shape_strides(&view->shape, channels_last != 0, stride);
        for (int64_t n = 0; n < i.n; n++)
            for (int64_t c = 0; c < i.c; c++)
                for (int64_t h = 0; h < i.h; h++)
                    for (int64_t w = 0; w < i.w; w++, at++)
                        wrong += dst[n * stride[0] + c * stride[1] + h * stride[2] + w * stride[3]] !=
                                 element(view, n, c, h, w);
        CHECK_INT(wrong, 0);
        CHECK_INT(at, i.n * i.c * i.h * i.w);
    }
    free(dst);
}

static float *counted(size_t count)
{
    float *data = malloc(count * sizeof *data + 8);
    for (size_t i = 0; data != NULL && i < count; i++) data[i] = (float)i;
    return data;
}

static void imports_any_strides(void)
{
    static const int64_t dims[][4] = {{2, 3, 5, 7}, {1, 1, 1, 1}, {1, 70, 33, 1}, {3, 16, 20, 31}, {0, 3, 5, 7}, {2, 300, 17, 19}};
    for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++) {
        const int64_t n = dims[d][0], c = dims[d][1], h = dims[d][2], w = dims[d][3];
        float *data = counted((size_t)(n * c * h * w * 2 + 1));
        REQUIRE(data != NULL);
        const int64_t planar[4] = {4 * c * h * w, 4 * h * w, 4 * w, 4};
        const int64_t last[4] = {4 * c * h * w, 4, 4 * c * w, 4 * c};
        const int64_t every_other[4] = {8 * c * h * w, 8 * h * w, 8 * w, 8};
        const int64_t broadcast[4] = {0, 4, 0, 4};
        cnn_view views[] = {view_of(data, dims[d], planar), view_of(data, dims[d], last),
                            view_of(data, dims[d], every_other), view_of(data, dims[d], broadcast)};
        for (size_t v = 0; v < 3; v++) check_import(&views[v]);
        if (c + w <= n * c * h * w) check_import(&views[3]);
        if (n * c * h * w > 0) {
            const int64_t backward[4] = {4 * c * h * w, -4 * h * w, 4 * w, -4};
            const cnn_view reversed = view_of(data + (c - 1) * h * w + w - 1, dims[d], backward);
            check_import(&reversed);
            memmove((char *)data + 1, data, (size_t)(n * c * h * w) * sizeof *data);
            const cnn_view unaligned = view_of((char *)data + 1, dims[d], planar);
            check_import(&unaligned);
            CHECK(!cnn_view_is_dense(&unaligned, CNN_FLOAT32, 0));
        }
        free(data);
    }
}

static void knows_dense_memory(void)
{
    float data[24] = {0};
    const int64_t dim[4] = {1, 2, 3, 4}, planar[4] = {96, 48, 16, 4}, last[4] = {96, 4, 32, 8};
    const cnn_view p = view_of(data, dim, planar), l = view_of(data, dim, last);
    CHECK(cnn_view_is_dense(&p, CNN_FLOAT32, 0) && !cnn_view_is_dense(&p, CNN_FLOAT32, 1));
    CHECK(cnn_view_is_dense(&l, CNN_FLOAT32, 1) && !cnn_view_is_dense(&l, CNN_FLOAT32, 0));
    CHECK(!cnn_view_is_dense(&p, CNN_FLOAT64, 0));
    cnn_view swapped = p;
    swapped.byteswapped = 1;
    CHECK(!cnn_view_is_dense(&swapped, CNN_FLOAT32, 0));
}

static void swaps_bytes(void)
{
    const unsigned char big_endian[8] = {0x3f, 0x80, 0, 0, 0xc0, 0x20, 0, 0}; /* 1, -2.5 */
    uint16_t probe = 1;
    unsigned char first;
    memcpy(&first, &probe, 1);
    cnn_view view = {.data = big_endian, .shape = {.rank = 1, .dim = {2}}, .stride = {4}, .kind = 'f', .itemsize = 4};
    view.byteswapped = first == 1;
    float dst[2];
    REQUIRE(cnn_view_import(&view, CNN_FLOAT32, 0, dst) == CNN_OK);
    CHECK(dst[0] == 1.0f && dst[1] == -2.5f);
}

static void widens_integers(void)
{
    const int8_t i8[3] = {-3, 0, 127};
    const uint8_t u8[2] = {0, 255};
    const uint64_t u64[2] = {7, UINT64_MAX};
    int64_t dst[3];
    cnn_view view = {.data = i8, .shape = {.rank = 1, .dim = {3}}, .stride = {1}, .kind = 'i', .itemsize = 1};
    REQUIRE(cnn_view_import(&view, CNN_INT64, 0, dst) == CNN_OK);
    CHECK(dst[0] == -3 && dst[1] == 0 && dst[2] == 127);
    view = (cnn_view){.data = u8, .shape = {.rank = 1, .dim = {2}}, .stride = {1}, .kind = 'u', .itemsize = 1};
    REQUIRE(cnn_view_import(&view, CNN_INT64, 0, dst) == CNN_OK);
    CHECK(dst[0] == 0 && dst[1] == 255);
    view = (cnn_view){.data = u64, .shape = {.rank = 1, .dim = {2}}, .stride = {8}, .kind = 'u', .itemsize = 8};
    CHECK_INT(cnn_view_import(&view, CNN_INT64, 0, dst), CNN_INVALID_VALUE);
    view.kind = 'f';
    CHECK_INT(cnn_view_import(&view, CNN_INT64, 0, dst), CNN_INVALID_TYPE);
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {TEST(imports_any_strides), TEST(knows_dense_memory), TEST(swaps_bytes),
                                      TEST(widens_integers)};
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
