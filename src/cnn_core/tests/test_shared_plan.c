/* One plan, loaded from a file, and many threads that run it at the same time, each in a context of its own. */
#include "tests/small_net.h"
#include "tests/test.h"

#if defined(_WIN32) || !(defined(__unix__) || defined(__APPLE__))

static void many_threads(void) { printf("no POSIX threads: "); }

#else

#include <pthread.h>

enum { THREADS = 6, ROUNDS = 20 };

typedef struct worker {
    const cnn_plan *plan;
    int64_t seed;
    net_inputs inputs;
    net_results wanted, got;
    cnn_status status;
    int64_t wrong;
} worker;

static cnn_status run(worker *w, net_results *results)
{
    cnn_context *context = NULL;
    net_fill(CNN_FLOAT32, w->seed, &w->inputs);
    cnn_status status = cnn_context_create(w->plan, &context);
    if (status == CNN_OK) status = net_bind(context, w->plan, &w->inputs, results);
    if (status == CNN_OK) status = cnn_context_forward(context);
    cnn_context_free(context);
    return status;
}

static void *work(void *arg)
{
    worker *w = arg;
    for (int i = 0; i < ROUNDS && w->status == CNN_OK; i++) {
        w->status = run(w, &w->got);
        w->wrong += memcmp(&w->got, &w->wanted, sizeof w->got) != 0;
    }
    return NULL;
}

/* Each thread makes its own failure and finds its own message. */
static void *fail(void *arg)
{
    char expected[64];
    worker *w = arg;
    for (int i = 0; i < ROUNDS; i++) {
        cnn_shape shape;
        (void)snprintf(expected, sizeof expected, "value %d is not of this plan", (int)(1000 + w->seed));
        w->wrong += cnn_plan_shape(w->plan, (cnn_value)(1000 + w->seed), &shape) != CNN_INVALID_VALUE;
        w->wrong += strstr(cnn_last_error(), expected) == NULL;
    }
    return NULL;
}

static void share(worker *workers, void *(*what)(void *arg))
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) REQUIRE(pthread_create(&threads[i], NULL, what, &workers[i]) == 0);
    for (int i = 0; i < THREADS; i++) REQUIRE(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < THREADS; i++) {
        CHECK_INT(workers[i].status, CNN_OK);
        CHECK_INT(workers[i].wrong, 0);
    }
}

static void many_threads(void)
{
    static worker workers[THREADS];
    small_net *net = net_create(CNN_FLOAT32, NULL);
    cnn_plan *plan = NULL, *loaded = NULL;
    const cnn_plan_options options = {.threads = 2};
    size_t size = 0;
    REQUIRE(net != NULL && cnn_plan_freeze(net->graph, NULL, net->data, &plan) == CNN_OK);
    net_free(net);
    REQUIRE(cnn_plan_save_memory(plan, NULL, &size) == CNN_OK);
    char *const bytes = malloc(size);
    REQUIRE(bytes != NULL && cnn_plan_save_memory(plan, bytes, &size) == CNN_OK);
    REQUIRE(cnn_plan_load_memory(bytes, size, &options, &loaded) == CNN_OK);
    free(bytes);
    for (int i = 0; i < THREADS; i++) {
        workers[i].plan = plan;
        workers[i].seed = i;
        CHECK_INT(run(&workers[i], &workers[i].wanted), CNN_OK);
        workers[i].plan = loaded;
    }
    share(workers, work);
    share(workers, fail);
    cnn_plan_free(plan);
    cnn_plan_free(loaded);
}

#endif

int main(int argc, char **argv)
{
    static const test_case tests[] = {TEST(many_threads)};
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
