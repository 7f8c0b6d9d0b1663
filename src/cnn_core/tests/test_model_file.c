/* Model files: what is saved comes back to the bit, and nothing that is wrong with one does harm. */
#include <stdio.h>

#include "io/checksum.h"
#include "tests/small_net.h"
#include "tests/test.h"

typedef struct file {
    char *bytes;
    size_t size;
} file;

static file save(const cnn_plan *plan)
{
    file saved = {0};
    if (cnn_plan_save_memory(plan, NULL, &saved.size) != CNN_OK) return saved;
    saved.bytes = malloc(saved.size);
    if (saved.bytes != NULL && cnn_plan_save_memory(plan, saved.bytes, &saved.size) == CNN_OK) return saved;
    free(saved.bytes);
    return (file){0};
}

static file save_net(cnn_dtype dtype)
{
    file saved = {0};
    small_net *net = net_create(dtype, NULL);
    cnn_plan *plan = NULL;
    if (net != NULL && cnn_plan_freeze(net->graph, NULL, net->data, &plan) == CNN_OK) saved = save(plan);
    cnn_plan_free(plan);
    net_free(net);
    return saved;
}

/* Puts the right checksum into a file that was changed, wherever its digits are now. */
static void sign(file changed)
{
    static const char key[] = "\"checksum\":\"";
    for (size_t i = 0; i + sizeof key + 8 < changed.size; i++) {
        if (memcmp(changed.bytes + i, key, sizeof key - 1) != 0) continue;
        char digits[9];
        cnn_checksum checksum;
        memcpy(changed.bytes + i + sizeof key - 1, "00000000", 8);
        cnn_checksum_begin(&checksum);
        cnn_checksum_add(&checksum, changed.bytes, changed.size);
        (void)snprintf(digits, sizeof digits, "%08lx", (unsigned long)cnn_checksum_end(&checksum));
        memcpy(changed.bytes + i + sizeof key - 1, digits, 8);
        return;
    }
}

static size_t header_bytes(file saved)
{
    size_t length = 0;
    for (int i = 7; i >= 0; i--) length = length << 8 | (unsigned char)saved.bytes[i];
    return length;
}

static void comes_back(void)
{
    static net_results before, after;
    for (int i = 0; i < 6; i++) {
        const cnn_dtype dtype = i < 4 ? CNN_FLOAT32 : CNN_FLOAT64;
        const cnn_plan_options options = {.direct = i & 1, .reference = i == 2 || i == 3, .threads = 2};
        small_net *net = net_create(dtype, NULL);
        cnn_plan *plan = NULL, *loaded = NULL;
        REQUIRE(net != NULL && net->status == CNN_OK && cnn_graph_num_values(net->graph) <= NET_VALUES);
        REQUIRE(cnn_plan_freeze(net->graph, &options, net->data, &plan) == CNN_OK);
        net_free(net);
        CHECK_INT(net_run(plan, dtype, &before), CNN_OK);
        const file saved = save(plan);
        REQUIRE(saved.bytes != NULL);
        REQUIRE(cnn_plan_load_memory(saved.bytes, saved.size, &options, &loaded) == CNN_OK);
        CHECK_INT(net_run(loaded, dtype, &after), CNN_OK);
        CHECK(memcmp(&before, &after, sizeof before) == 0);
        for (int kind = CNN_MEMORY_CONSTANTS; kind <= CNN_MEMORY_WORKSPACE; kind++)
            CHECK_INT(cnn_plan_bytes(loaded, (cnn_memory)kind), cnn_plan_bytes(plan, (cnn_memory)kind));
        CHECK_STRING(cnn_plan_description(loaded), "a \"small\" net\n\\ \xe2\x82\xac");
        CHECK_INT(cnn_plan_num_inputs(loaded), 2);
        CHECK_STRING(cnn_plan_name(loaded, cnn_plan_input(loaded, 1)), "bias");
        CHECK_STRING(cnn_plan_name(loaded, cnn_plan_output(loaded, 0)), "scores");
        CHECK_STRING(cnn_plan_name(loaded, cnn_plan_output(loaded, 1)), "features");
        const file again = save(loaded);
        CHECK(again.size == saved.size && memcmp(again.bytes, saved.bytes, saved.size) == 0);
        free(again.bytes);
        cnn_plan_free(loaded);

        /* Any alignment will do. */
        char *const moved = malloc(saved.size + 1);
        REQUIRE(moved != NULL);
        memcpy(moved + 1, saved.bytes, saved.size);
        CHECK_INT(cnn_plan_load_memory(moved + 1, saved.size, &options, &loaded), CNN_OK);
        CHECK_INT(net_run(loaded, dtype, &after), CNN_OK);
        CHECK(memcmp(&before, &after, sizeof before) == 0);
        cnn_plan_free(loaded);
        free(moved);

        /* A plan that will not be saved has the same results, and less memory where there is Winograd. */
        cnn_plan_options last = options;
        last.final = 1;
        CHECK_INT(cnn_plan_load_memory(saved.bytes, saved.size, &last, &loaded), CNN_OK);
        CHECK_INT(net_run(loaded, dtype, &after), CNN_OK);
        CHECK(memcmp(&before, &after, sizeof before) == 0);
        CHECK(cnn_plan_bytes(loaded, CNN_MEMORY_CONSTANTS) + (i == 0) <= cnn_plan_bytes(plan, CNN_MEMORY_CONSTANTS));
        CHECK_INT(cnn_plan_save(loaded, "cnn_test_final.cnn"), CNN_INVALID_STATE);
        cnn_plan_free(loaded);
        cnn_plan_free(plan);
        free(saved.bytes);
    }
}

/* A net that was frozen for Winograd and one that was not hold the same weights: unpacking is exact. */
static void weights_do_not_depend_on_packing(void)
{
    file saved[3] = {{0}};
    for (int i = 0; i < 3; i++) {
        const cnn_plan_options options = {.direct = i == 1, .reference = i == 2};
        small_net *net = net_create(CNN_FLOAT32, NULL);
        cnn_plan *plan = NULL;
        REQUIRE(net != NULL && cnn_plan_freeze(net->graph, &options, net->data, &plan) == CNN_OK);
        saved[i] = save(plan);
        REQUIRE(saved[i].bytes != NULL);
        cnn_plan_free(plan);
        net_free(net);
    }
    for (int i = 1; i < 3; i++) {
        const size_t first = 8 + header_bytes(saved[0]), other = 8 + header_bytes(saved[i]);
        CHECK_INT(saved[i].size - other, saved[0].size - first);
        CHECK(memcmp(saved[0].bytes + first, saved[i].bytes + other, saved[0].size - first) == 0);
    }
    for (int i = 0; i < 3; i++) free(saved[i].bytes);
}

static void files_on_disk(void)
{
    const char *const name = "cnn_test_model_file.cnn";
    static net_results before, after;
    cnn_plan *plan = NULL, *loaded = NULL;
    small_net *net = net_create(CNN_FLOAT32, NULL);
    REQUIRE(net != NULL && cnn_plan_freeze(net->graph, NULL, net->data, &plan) == CNN_OK);
    (void)remove(name);
    CHECK_INT(cnn_plan_load(name, NULL, &loaded), CNN_IO_ERROR);
    CHECK(strstr(cnn_last_error(), name) != NULL);
    CHECK_INT(cnn_plan_save(plan, "no/such/folder/model.cnn"), CNN_IO_ERROR);
    for (int i = 0; i < 2; i++) CHECK_INT(cnn_plan_save(plan, name), CNN_OK); /* the second replaces the first */
    const file saved = save(plan);
    FILE *stream = fopen(name, "rb");
    REQUIRE(stream != NULL && saved.bytes != NULL);
    char *const bytes = malloc(saved.size + 1);
    REQUIRE(bytes != NULL);
    CHECK_INT(fread(bytes, 1, saved.size + 1, stream), saved.size);
    (void)fclose(stream);
    CHECK(memcmp(bytes, saved.bytes, saved.size) == 0);
    free(bytes);
    free(saved.bytes);
    CHECK_INT(cnn_plan_load(name, NULL, &loaded), CNN_OK);
    CHECK_INT(net_run(plan, CNN_FLOAT32, &before), CNN_OK);
    CHECK_INT(net_run(loaded, CNN_FLOAT32, &after), CNN_OK);
    CHECK(memcmp(&before, &after, sizeof before) == 0);
    cnn_plan_free(loaded);
    stream = fopen(name, "wb");
    REQUIRE(stream != NULL);
    CHECK(fputs("no model", stream) >= 0);
    (void)fclose(stream);
    CHECK_INT(cnn_plan_load(name, NULL, &loaded), CNN_BAD_FILE);
    CHECK(loaded == NULL && strstr(cnn_last_error(), name) != NULL);
    (void)remove(name);

    size_t size = 10;
    char few[10];
    CHECK_INT(cnn_plan_save_memory(plan, few, &size), CNN_INVALID_VALUE);
    const cnn_plan_options backward = {.backward = 1}, threads = {.threads = -1};
    CHECK_INT(cnn_plan_load_memory(few, size, &backward, &loaded), CNN_INVALID_VALUE);
    CHECK_INT(cnn_plan_load_memory(few, size, &threads, &loaded), CNN_INVALID_VALUE);
    cnn_plan_free(plan);
    REQUIRE(cnn_plan_create(net->graph, NULL, &plan) == CNN_OK);
    CHECK_INT(cnn_plan_save(plan, name), CNN_INVALID_STATE);
    cnn_plan_free(plan);
    net_free(net);
}

static void every_truncation_and_flip_is_seen(void)
{
    const file saved = save_net(CNN_FLOAT32);
    REQUIRE(saved.bytes != NULL);
    cnn_plan *plan = NULL;
    int64_t passed = 0;
    const size_t header = 8 + header_bytes(saved);
    for (size_t size = 0; size < saved.size; size += size < header + 64 ? 1 : 61) {
        char *const exact = malloc(size + 1); /* so that a sanitizer sees a read behind the end */
        REQUIRE(exact != NULL);
        memcpy(exact, saved.bytes, size);
        passed += cnn_plan_load_memory(exact, size, NULL, &plan) != CNN_BAD_FILE || plan != NULL;
        free(exact);
    }
    for (size_t i = 0; i < saved.size; i += i < header ? 1 : 17) {
        saved.bytes[i] ^= (char)(1 << i % 8);
        passed += cnn_plan_load_memory(saved.bytes, saved.size, NULL, &plan) != CNN_BAD_FILE || plan != NULL;
        saved.bytes[i] ^= (char)(1 << i % 8);
    }
    CHECK_INT(passed, 0);
    CHECK_INT(cnn_plan_load_memory(saved.bytes, saved.size, NULL, &plan), CNN_OK);
    cnn_plan_free(plan);
    free(saved.bytes);
}

/* ---- files that lie, with the right checksum ------------------------------------------------------------------------- */

/* Replaces the first `from` in the header by `to`, no longer, and spaces, and loads that. */
static cnn_status load_changed(const char *from, const char *to)
{
    const file saved = save_net(CNN_FLOAT32);
    cnn_plan *plan = NULL;
    cnn_status status = CNN_INVALID_STATE; /* `from` is not there */
    const size_t length = strlen(from);
    for (size_t i = 8; saved.bytes != NULL && i + length < 8 + header_bytes(saved); i++) {
        if (memcmp(saved.bytes + i, from, length) != 0) continue;
        memset(saved.bytes + i, ' ', length);
        memcpy(saved.bytes + i, to, strlen(to));
        sign(saved);
        status = cnn_plan_load_memory(saved.bytes, saved.size, NULL, &plan);
        cnn_plan_free(plan);
        break;
    }
    free(saved.bytes);
    return status;
}

static void lies_are_refused(void)
{
    static const struct {
        const char *from, *to, *message;
    } lies[] = {
        {"{\"__metadata__\"", "{\"__metaData__\"", "__metadata__"},
        {"\"format\":\"cnn\"", "\"format\":\"pt\"", "no model file: its format is \"pt\""},
        {"\"version\":\"1\"", "\"version\":\"2\"", "its version is 2"},
        {"\\\"dtype\\\":\\\"float32\\\"", "\\\"dtype\\\":\\\"int64\\\"", "float32 or float64"},
        {"\\\"dtype\\\":\\\"float32\\\"", "\\\"dtype\\\":\\\"float16\\\"", "a name that this version knows"},
        {"\\\"op\\\":\\\"conv2d\\\"", "\\\"op\\\":\\\"conv3d\\\"", "a name that this version knows"},
        {"\\\"stride\\\":[1,1]", "\\\"stride\\\":[0,1]", "stride: got 0"},
        {"\\\"stride\\\":[1,1]", "\\\"stride\\\":[9,1]", "another shape"},
        {"\\\"stride\\\":[1,1]", "\\\"stride\\\":[1, ]", "a digit"},
        {"\\\"stride\\\":[1,1]", "\\\"stride\\\":[111]", "more elements"},
        {"\\\"stride\\\":[1,1]", "\\\"strife\\\":[1,1]", "member \"stride\""},
        {"\\\"padding\\\":[1,1,1,1]", "\\\"padding\\\":[1,1,1.1]", "an integer"},
        {"\\\"padding\\\":[1,1,1,1]", "\\\"padding\\\":[1,1,1e1]", "an integer"},
        {"\\\"padding\\\":[1,1,1,1]", "\\\"padding\\\":[01,1,11]", "leading zeros"},
        {"\\\"padding\\\":[1,1,1,1],\\\"output_padding\\\"", "\\\"padding\\\":[99999999999999999999999999",
         "an integer of 64 bits"},
        {"\\\"eps\\\":1e-05", "\\\"eps\\\":1e999", "finite"},
        {"\\\"eps\\\":1e-05", "\\\"eps\\\":-1e-5", "eps"},
        {"\\\"eps\\\":1e-05,", "\\\"eps\\\":NaN,", "a digit"},
        {"\\\"training\\\":false", "\\\"training\\\":False", "true or false"},
        {"\\\"sources\\\":[0,", "\\\"sources\\\":[-,", "a digit"},
        {"\\\"sources\\\":[0,", "\\\"sources\\\":[90", "integer in another range"},
        {"\\\"shape\\\":[1,20,11,11]", "\\\"shape\\\":[1,20,-1,11]", "integer in another range"},
        {"\\\"shape\\\":[1,20,11,11]},{\\\"name", "\\\"shape\\\":[1,1,1,1,1,1,1]", "fewer dimensions"},
        {"\\\"name\\\":\\\"image\\\"", "\\\"name\\\":\\\"\\\\u00\\\"", "UTF-8"},
        {"\\\"name\\\":\\\"image\\\"", "\\\"name\\\":\\\"im\xff\xff\xff\\\"", "UTF-8"},
        {"\\\"constants\\\":[\\\"constant\\\"", "\\\"constants\\\":[\\\"bn.weight", ""},
        {"\"dtype\":\"F32\"", "\"dtype\":\"F64\"", ""},
        {"\"dtype\":\"F32\"", "\"dtype\":\"F16\"", "a name that this version knows"},
        {"\"data_offsets\":[0,8]", "\"data_offsets\":[1,9]", "offsets"},
        {"\"data_offsets\":[0,8]", "\"data_offsets\":[8,0]", "another range"},
        {"\"data_offsets\":[0,8]", "\"data_offsets\":[0,9]", "offsets"},
        {"\\\"outputs\\\":[{", "\\\"outputs\\\":[]", "'}'"},
        {"\\\"value\\\":", "\\\"valve\\\":", "member \"value\""},
    };
    for (size_t i = 0; i < TEST_COUNT(lies); i++) {
        REQUIRE(strlen(lies[i].to) <= strlen(lies[i].from));
        CHECK_INT(load_changed(lies[i].from, lies[i].to), CNN_BAD_FILE);
        CHECK(strstr(cnn_last_error(), lies[i].message) != NULL);
        if (strstr(cnn_last_error(), lies[i].message) == NULL)
            fprintf(stderr, "%s: %s\n", lies[i].to, cnn_last_error());
    }
    CHECK_INT(load_changed("\\\"name\\\":\\\"image\\\"", "\\\"name\\\":\\\"i\\\\/\\\""), CNN_OK); /* an escape */
}

/* Memory in moderation: what a file asks for beyond what it holds is bounded, or it is refused. */
#define MOST_BYTES ((size_t)64 << 20)

static void *allocate(void *user, size_t bytes, size_t alignment)
{
    (void)user;
    (void)alignment;
    if (bytes > MOST_BYTES) return NULL;
    char *const whole = malloc(bytes + 64 + sizeof(void *));
    if (whole == NULL) return NULL;
    char *const memory = whole + sizeof(void *) + (size_t)(-(uintptr_t)(whole + sizeof(void *)) & 63);
    memcpy(memory - sizeof(void *), &whole, sizeof whole);
    return memory;
}

static void release(void *user, void *memory)
{
    void *whole;
    (void)user;
    memcpy(&whole, (char *)memory - sizeof(void *), sizeof whole);
    free(whole);
}

/* Loads a file that was tampered with and signed, and runs what comes of it. */
static void survive(file changed)
{
    const cnn_allocator careful = {allocate, release, NULL};
    const cnn_plan_options options = {.allocator = &careful, .threads = 1};
    static double memory[1 << 16];
    cnn_plan *plan = NULL;
    cnn_context *context = NULL;
    const cnn_status status = cnn_plan_load_memory(changed.bytes, changed.size, &options, &plan);
    CHECK(status == CNN_OK || status == CNN_BAD_FILE || status == CNN_OUT_OF_MEMORY);
    CHECK((status == CNN_OK) == (plan != NULL));
    if (status != CNN_OK || cnn_context_create(plan, &context) != CNN_OK) {
        cnn_plan_free(plan);
        return;
    }
    bool small = cnn_plan_context_bytes(plan) < sizeof memory;
    for (int32_t i = 0; i < cnn_plan_num_inputs(plan) + cnn_plan_num_outputs(plan); i++) {
        const cnn_value input = cnn_plan_input(plan, i);
        const cnn_value value = input != CNN_NONE ? input : cnn_plan_output(plan, i - cnn_plan_num_inputs(plan));
        cnn_shape shape;
        double bytes = 8;
        CHECK_INT(cnn_plan_shape(plan, value, &shape), CNN_OK);
        for (int32_t axis = 0; axis < shape.rank; axis++) bytes *= (double)shape.dim[axis];
        small = small && bytes <= (double)sizeof memory;
        CHECK_INT(cnn_context_bind(context, value, memory, NULL), CNN_OK);
    }
    if (small) CHECK_INT(cnn_context_forward(context), CNN_OK);
    cnn_context_free(context);
    cnn_plan_free(plan);
}

static uint32_t next_random(uint32_t *state) { return (*state = *state * 1664525u + 1013904223u) >> 8; }

static void tampered_files_do_no_harm(void)
{
    static const char marks[] = "0123456789-.eE+\"\\[]{},: nulltrue\x00\x80\xff";
    const file saved = save_net(CNN_FLOAT32);
    REQUIRE(saved.bytes != NULL);
    const size_t header = 8 + header_bytes(saved);
    file changed = {malloc(saved.size), saved.size};
    REQUIRE(changed.bytes != NULL);
    uint32_t state = 1;
    const bool emulated = getenv("CNN_TEST_EMULATED") != NULL;
    for (int round = 0; round < (emulated ? 200 : 12000); round++) {
        memcpy(changed.bytes, saved.bytes, saved.size);
        for (uint32_t edits = 1 + next_random(&state) % 3; edits > 0; edits--) {
            const size_t at = 8 + next_random(&state) % (header - 8), from = 8 + next_random(&state) % (header - 8);
            const size_t count = 1 + next_random(&state) % 24;
            switch (next_random(&state) % 3) {
            case 0: changed.bytes[at] = marks[next_random(&state) % (sizeof marks - 1)]; break;
            case 1: changed.bytes[at] ^= (char)(1 << next_random(&state) % 8); break;
            default: /* another piece of it */
                memmove(changed.bytes + at, changed.bytes + from,
                        count < header - (at > from ? at : from) ? count : header - (at > from ? at : from));
            }
        }
        sign(changed);
        survive(changed);
    }
    free(changed.bytes);
    free(saved.bytes);
}

int main(int argc, char **argv)
{
    static const test_case tests[] = {TEST(comes_back), TEST(weights_do_not_depend_on_packing), TEST(files_on_disk),
                                      TEST(every_truncation_and_flip_is_seen), TEST(lies_are_refused),
                                      TEST(tampered_files_do_no_harm)};
    return test_main(argc, argv, tests, TEST_COUNT(tests));
}
