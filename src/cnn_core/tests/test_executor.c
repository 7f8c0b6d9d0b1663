/* A context's runs on threads of the program's own: the same bits, whatever the executor does with the parts. */
#include <stdatomic.h>
#include <stdbool.h>

#include "cnn_core.h"
#include "tests/test.h"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define HAVE_PTHREADS 1
#endif

enum { THREADS = 4, C = 32, SIZE = 32, X = C * SIZE * SIZE, W = C * C * 9 };

typedef struct results {
    float dst[X], diff_src[X], diff_weights[W];
} results;

/* What an executor was asked for, and how many parts ran. */
typedef struct record {
    int regions, wrong;
    atomic_int parts;
} record;

typedef void part_fn(void *arg, int32_t participant);

static void note(record *r, int32_t participants)
{
    r->regions++;
    if (participants < 2 || participants > THREADS) r->wrong++;
}

static void one_after_another(void *state, int32_t participants, part_fn *part, void *arg)
{
    note(state, participants);
    for (int32_t p = participants - 1; p >= 0; p--) part(arg, p);
}

static void only_part_0(void *state, int32_t participants, part_fn *part, void *arg)
{
    note(state, participants);
    part(arg, 0);
}

static void none(void *state, int32_t participants, part_fn *part, void *arg)
{
    (void)part, (void)arg;
    note(state, participants);
}

/* Numbers that were not asked for, and one of them often. */
static void confused(void *state, int32_t participants, part_fn *part, void *arg)
{
    note(state, participants);
    part(arg, -1);
    part(arg, participants);
    part(arg, 1000000);
    for (int i = 0; i < 3; i++) part(arg, 1);
}

static float number(int64_t i) { return (float)((i * 7919) % 201 - 100) / 100.0f; }

static cnn_status make(cnn_plan **plan)
{
    static const cnn_attributes same = {
        .conv = {.stride = {1, 1}, .dilation = {1, 1}, .padding = {1, 1, 1, 1}, .groups = 1}};
    static const cnn_shape shapes[] = {{.rank = 4, .dim = {1, C, SIZE, SIZE}}, {.rank = 4, .dim = {C, C, 3, 3}}};
    const cnn_plan_options options = {.backward = 1, .repeat = 1, .threads = THREADS};
    return cnn_plan_single(CNN_OP_CONV2D, &same, CNN_FLOAT32, 2, shapes, &options, plan);
}

static cnn_status run(cnn_context *context, results *to)
{
    static float src[X], weights[W], diff_dst[X];
    for (int i = 0; i < X; i++) src[i] = number(i), diff_dst[i] = number(5 * i + 1);
    for (int i = 0; i < W; i++) weights[i] = number(3 * i);
    memset(to, 0, sizeof *to);
    cnn_status status = cnn_context_bind(context, 0, src, to->diff_src);
    if (status == CNN_OK) status = cnn_context_bind(context, 1, weights, to->diff_weights);
    if (status == CNN_OK) status = cnn_context_bind(context, 2, to->dst, diff_dst);
    if (status == CNN_OK) status = cnn_context_forward(context);
    if (status == CNN_OK) status = cnn_context_backward(context);
    return status;
}

/* Runs with the executor, and then without it again; fills the record. */
static void runs_right(cnn_executor_fn executor, record *r)
{
    static results wanted, got;
    cnn_plan *plan;
    cnn_context *context, *other;
    REQUIRE(make(&plan) == CNN_OK && cnn_context_create(plan, &context) == CNN_OK);
    REQUIRE(cnn_context_create(plan, &other) == CNN_OK);
    CHECK_INT(run(context, &wanted), CNN_OK);

    CHECK_INT(cnn_context_set_executor(context, executor, r), CNN_OK);
    CHECK_INT(run(context, &got), CNN_OK);
    CHECK(memcmp(&got, &wanted, sizeof got) == 0);
    const int regions = r->regions;
    CHECK(regions >= 2); /* forward and backward */
    CHECK_INT(r->wrong, 0);

    CHECK_INT(run(other, &got), CNN_OK); /* another context has nothing of it */
    CHECK_INT(cnn_context_set_executor(context, NULL, NULL), CNN_OK);
    CHECK_INT(run(context, &got), CNN_OK);
    CHECK(memcmp(&got, &wanted, sizeof got) == 0);
    CHECK_INT(r->regions, regions);
    cnn_context_free(context);
    cnn_context_free(other);
    cnn_plan_free(plan);
}

static void whatever_it_does(void)
{
    static const cnn_executor_fn executors[] = {one_after_another, only_part_0, none, confused};
    for (size_t i = 0; i < sizeof executors / sizeof *executors; i++) {
        record r = {0};
        runs_right(executors[i], &r);
    }
}

#if defined(HAVE_PTHREADS)

typedef struct post {
    record *record;
    part_fn *part;
    void *arg;
    int32_t participant;
} post;

static void *deliver(void *arg)
{
    const post *p = arg;
    atomic_fetch_add(&p->record->parts, 1);
    p->part(p->arg, p->participant);
    return NULL;
}

/* A thread for each part, the calling one only waits. */
static void on_threads(void *state, int32_t participants, part_fn *part, void *arg)
{
    pthread_t threads[THREADS];
    post posts[THREADS];
    note(state, participants);
    for (int32_t p = 0; p < participants; p++) {
        posts[p] = (post){.record = state, .part = part, .arg = arg, .participant = p};
        REQUIRE(pthread_create(&threads[p], NULL, deliver, &posts[p]) == 0);
    }
    for (int32_t p = 0; p < participants; p++) REQUIRE(pthread_join(threads[p], NULL) == 0);
}

static void own_threads(void)
{
    record r = {0};
    runs_right(on_threads, &r);
    CHECK(atomic_load(&r.parts) >= 2 * r.regions && atomic_load(&r.parts) <= THREADS * r.regions);
}

#endif

int main(int argc, char **argv)
{
    static const test_case tests[] = {
#if defined(HAVE_PTHREADS)
        TEST(own_threads),
#endif
        TEST(whatever_it_does),
    };
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
