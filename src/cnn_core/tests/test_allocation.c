/* The caller's allocator: everything comes from it and goes back to it, and it may fail at any time. */
#include <stdint.h>
#include <stdio.h>

#include "tests/small_net.h"
#include "tests/test.h"

/* Fails the call number `fail_at`, counted from 1; 0: none. What is in use is counted, and marked so that foreign or twice
 * released memory is noticed. */
typedef struct ledger {
    int64_t calls, fail_at, in_use, mistakes;
    size_t bytes; /* in use */
} ledger;

typedef struct block {
    void *whole;
    uint64_t mark;
    size_t bytes;
} block;

#define MARK UINT64_C(0x636E6E5F636F7265)

static void *allocate(void *user, size_t bytes, size_t alignment)
{
    ledger *book = user;
    if (++book->calls == book->fail_at) return NULL;
    char *const whole = malloc(bytes + alignment + sizeof(block));
    if (whole == NULL) return NULL;
    const uintptr_t first = (uintptr_t)whole + sizeof(block);
    char *const memory = whole + sizeof(block) + (size_t)(-first & (alignment - 1));
    const block head = {whole, MARK, bytes};
    memcpy(memory - sizeof head, &head, sizeof head);
    book->in_use++;
    book->bytes += bytes;
    return memory;
}

static void release(void *user, void *memory)
{
    ledger *book = user;
    block head;
    memcpy(&head, (char *)memory - sizeof head, sizeof head);
    if (head.mark != MARK) {
        book->mistakes++;
        return;
    }
    head.mark = 0;
    memcpy((char *)memory - sizeof head, &head, sizeof head);
    book->in_use--;
    book->bytes -= head.bytes;
    free(head.whole);
}

/* The whole life of a network: graph, plan, file, context, forward, and one operation with backward. */
static cnn_status live(const cnn_allocator *allocator, cnn_dtype dtype)
{
    static net_results results;
    const cnn_plan_options options = {.allocator = allocator, .threads = 2};
    cnn_plan *plan = NULL, *loaded = NULL;
    char *bytes = NULL;
    size_t size = 0;
    small_net *net = net_create(dtype, allocator);
    cnn_status status = net == NULL ? CNN_INVALID_STATE : net->status;
    if (status == CNN_OK) status = cnn_plan_freeze(net->graph, &options, net->data, &plan);
    net_free(net);
    if (status == CNN_OK) status = net_run(plan, dtype, &results);
    if (status == CNN_OK) status = cnn_plan_save_memory(plan, NULL, &size);
    if (status == CNN_OK) bytes = malloc(size);
    if (status == CNN_OK) status = bytes == NULL ? CNN_INVALID_STATE : cnn_plan_save_memory(plan, bytes, &size);
    if (status == CNN_OK) status = cnn_plan_load_memory(bytes, size, &options, &loaded);
    if (status == CNN_OK) status = net_run(loaded, dtype, &results);
    cnn_plan_free(plan);
    cnn_plan_free(loaded);
    free(bytes);
    return status;
}

static cnn_status train_one(const cnn_allocator *allocator)
{
    static float memory[4][2 * 4 * 8 * 8], diff[4][2 * 4 * 8 * 8];
    const cnn_plan_options options = {.backward = 1, .allocator = allocator, .threads = 2};
    const cnn_attributes same = {
        .conv = {.stride = {1, 1}, .dilation = {1, 1}, .padding = {1, 1, 1, 1}, .groups = 1}};
    const cnn_shape shapes[] = {
        {.rank = 4, .dim = {2, 4, 8, 8}}, {.rank = 4, .dim = {4, 4, 3, 3}}, {.rank = 1, .dim = {4}}};
    cnn_plan *plan = NULL;
    cnn_context *context = NULL;
    cnn_status status = cnn_plan_single(CNN_OP_CONV2D, &same, CNN_FLOAT32, 3, shapes, &options, &plan);
    if (status == CNN_OK) status = cnn_context_create(plan, &context);
    for (int32_t v = 0; v < 4 && status == CNN_OK; v++) status = cnn_context_bind(context, v, memory[v], diff[v]);
    if (status == CNN_OK) status = cnn_context_forward(context);
    if (status == CNN_OK) status = cnn_context_backward(context);
    cnn_context_free(context);
    cnn_plan_free(plan);
    return status;
}

static cnn_status use_files(const cnn_allocator *allocator)
{
    const char *const name = "cnn_test_allocation.cnn";
    const cnn_plan_options options = {.allocator = allocator};
    cnn_plan *plan = NULL, *loaded = NULL;
    small_net *net = net_create(CNN_FLOAT32, allocator);
    cnn_status status = net == NULL ? CNN_INVALID_STATE : net->status;
    if (status == CNN_OK) status = cnn_plan_freeze(net->graph, &options, net->data, &plan);
    if (status == CNN_OK) status = cnn_plan_save(plan, name);
    if (status == CNN_OK) status = cnn_plan_load(name, &options, &loaded);
    net_free(net);
    cnn_plan_free(plan);
    cnn_plan_free(loaded);
    (void)remove(name);
    return status;
}

static cnn_status live_in_float32(const cnn_allocator *allocator) { return live(allocator, CNN_FLOAT32); }

static cnn_status live_in_float64(const cnn_allocator *allocator) { return live(allocator, CNN_FLOAT64); }

/* Lets the first allocation fail, then the second, and so on until none is left to fail. */
static void fail_everywhere(cnn_status (*run)(const cnn_allocator *allocator))
{
    ledger book = {0};
    const cnn_allocator allocator = {allocate, release, &book};
    CHECK_INT(run(&allocator), CNN_OK);
    CHECK_INT(book.in_use, 0);
    const int64_t calls = book.calls;
    CHECK(calls > 5);
    for (int64_t n = 1; n <= calls; n++) {
        book = (ledger){.fail_at = n};
        CHECK_INT(run(&allocator), CNN_OUT_OF_MEMORY);
        CHECK(strstr(cnn_last_error(), "no memory") != NULL);
        CHECK_INT(book.in_use, 0);
        CHECK_INT(book.mistakes, 0);
    }
    book = (ledger){.fail_at = calls + 1};
    CHECK_INT(run(&allocator), CNN_OK);
}

static void a_frozen_networks_life(void) { fail_everywhere(live_in_float32); }

static void a_frozen_networks_life_in_float64(void) { fail_everywhere(live_in_float64); }

static void an_operation_with_backward(void) { fail_everywhere(train_one); }

static void files(void) { fail_everywhere(use_files); }

/* A run takes nothing from anywhere once its workspace is there. */
static void no_allocation_in_a_run(void)
{
    static net_inputs inputs;
    static net_results results;
    ledger book = {0};
    const cnn_allocator allocator = {allocate, release, &book};
    const cnn_plan_options options = {.allocator = &allocator, .threads = 2};
    small_net *net = net_create(CNN_FLOAT32, NULL);
    cnn_plan *plan = NULL;
    cnn_context *context = NULL;
    REQUIRE(net != NULL && cnn_plan_freeze(net->graph, &options, net->data, &plan) == CNN_OK);
    net_free(net);
    net_fill(CNN_FLOAT32, 0, &inputs);
    const int64_t before = book.calls;
    char *const memory = malloc(cnn_plan_context_bytes(plan));
    REQUIRE(memory != NULL);
    REQUIRE(cnn_context_create_in(plan, memory, cnn_plan_context_bytes(plan), &context) == CNN_OK);
    CHECK_INT(net_bind(context, plan, &inputs, &results), CNN_OK);
    for (int i = 0; i < 2; i++) CHECK_INT(cnn_context_forward(context), CNN_OK);
    CHECK_INT(book.calls, before);
    free(memory);
    REQUIRE(cnn_context_create(plan, &context) == CNN_OK);
    CHECK_INT(net_bind(context, plan, &inputs, &results), CNN_OK);
    CHECK_INT(cnn_context_forward(context), CNN_OK);
    const int64_t first = book.calls;
    CHECK_INT(cnn_context_forward(context), CNN_OK);
    CHECK_INT(book.calls, first);
    cnn_context_free(context);
    cnn_plan_free(plan);
    CHECK_INT(book.in_use, 0);
}

/* What a plan says of its memory is, to the byte, what it took. */
static void plans_count_all_they_take(void)
{
    static net_inputs inputs;
    static net_results results;
    for (int32_t final = 0; final < 2; final++) {
        ledger book = {0};
        const cnn_allocator allocator = {allocate, release, &book};
        const cnn_plan_options options = {.allocator = &allocator, .threads = 2, .final = final};
        small_net *net = net_create(CNN_FLOAT32, NULL);
        cnn_plan *plan = NULL;
        cnn_context *context = NULL;
        REQUIRE(net != NULL && cnn_plan_freeze(net->graph, &options, net->data, &plan) == CNN_OK);
        net_free(net);
        size_t counted = 0;
        for (int kind = CNN_MEMORY_CONSTANTS; kind <= CNN_MEMORY_TABLES; kind++)
            counted += cnn_plan_bytes(plan, (cnn_memory)kind);
        const size_t of_plan = book.bytes;
        REQUIRE(cnn_context_create(plan, &context) == CNN_OK);
        net_fill(CNN_FLOAT32, 0, &inputs);
        CHECK_INT(net_bind(context, plan, &inputs, &results), CNN_OK);
        CHECK_INT(cnn_context_forward(context), CNN_OK);
        CHECK_INT(book.bytes, counted);
        CHECK_INT(book.bytes - of_plan, cnn_context_bytes(context));
        cnn_context_free(context);
        cnn_plan_free(plan);
    }
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {TEST(a_frozen_networks_life), TEST(a_frozen_networks_life_in_float64),
                                      TEST(an_operation_with_backward), TEST(files), TEST(no_allocation_in_a_run),
                                      TEST(plans_count_all_they_take)};
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
