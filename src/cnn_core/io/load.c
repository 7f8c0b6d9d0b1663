/* Reading a model file: docs/model-file.md. Members come in one order, the one they are written in, and nothing else may
 * stand there: what is not understood is not a model file of this version. */
#include <string.h>

#include "io/checksum.h"
#include "io/format.h"
#include "io/json.h"

#define LENGTH_BYTES 8

/* The file's parts. */
typedef struct loading {
    const cnn_allocator *allocator;
    const char *bytes;
    size_t size;
    const char *data;  /* of the constants */
    size_t data_bytes;
    size_t read;       /* of data: taken by constants so far */
    cnn_graph *graph;
} loading;

/* What the graph refuses is the file's fault. */
static cnn_status blame_file(cnn_status status)
{
    return status == CNN_OK || status == CNN_OUT_OF_MEMORY ? status : CNN_BAD_FILE;
}

/* After a failure of the graph's, the reading has failed. */
static void take_status(cnn_json *json, cnn_status status)
{
    if (json->status == CNN_OK) json->status = blame_file(status);
}

/* ---- the graph ------------------------------------------------------------------------------------------------------- */

static void read_shape(cnn_json *json, cnn_shape *shape)
{
    *shape = (cnn_shape){0};
    cnn_json_open(json, '[');
    while (cnn_json_item(json)) {
        const int64_t size = cnn_json_integer(json, 0, INT64_MAX);
        if (shape->rank == CNN_MAX_RANK)
            cnn_json_fail(json, "fewer dimensions");
        else
            shape->dim[shape->rank++] = size;
    }
}

static void read_element(cnn_json *json, const cnn_field *field, char *at, int32_t i)
{
    switch (field->kind) {
    case CNN_FIELD_DOUBLE: ((double *)(void *)at)[i] = cnn_json_number(json); break;
    case CNN_FIELD_INT32: ((int32_t *)(void *)at)[i] = (int32_t)cnn_json_integer(json, INT32_MIN, INT32_MAX); break;
    case CNN_FIELD_BOOLEAN: ((int32_t *)(void *)at)[i] = cnn_json_boolean(json); break;
    case CNN_FIELD_NAME: *(int *)(void *)at = cnn_json_choice(json, field->names); break;
    case CNN_FIELD_SHAPE: read_shape(json, (cnn_shape *)(void *)at); break;
    case CNN_FIELD_INT64:
    case CNN_FIELD_AXES: ((int64_t *)(void *)at)[i] = cnn_json_integer(json, INT64_MIN, INT64_MAX); break;
    }
}

static void read_attributes(cnn_json *json, const cnn_op_row *row, int32_t rank, cnn_attributes *attributes)
{
    memset(attributes, 0, sizeof *attributes);
    cnn_json_open(json, '{');
    for (const cnn_field *field = row->fields; field != NULL && field->name != NULL; field++) {
        char *const at = (char *)attributes + field->offset;
        const int32_t count = field->kind == CNN_FIELD_AXES ? rank : field->count;
        cnn_json_key(json, field->name);
        if (field->kind != CNN_FIELD_AXES && field->count == 1) {
            read_element(json, field, at, 0);
            continue;
        }
        int32_t i = 0;
        cnn_json_open(json, '[');
        while (cnn_json_item(json)) {
            if (i == count)
                cnn_json_fail(json, "fewer elements");
            else
                read_element(json, field, at, i++);
        }
        if (i < count) cnn_json_fail(json, "more elements");
    }
    cnn_json_close(json, '}');
}

static cnn_op read_op(cnn_json *json)
{
    const char *names[CNN_OP_COUNT + 1] = {NULL};
    for (int op = 0; op < CNN_OP_COUNT; op++) names[op] = cnn_op_table[op]->name;
    return (cnn_op)cnn_json_choice(json, names);
}

static void read_node(cnn_json *json, cnn_graph *graph)
{
    cnn_attributes attributes;
    cnn_value sources[CNN_MAX_SOURCES] = {0}, result;
    cnn_shape shape;
    int32_t num_sources = 0;
    cnn_json_open(json, '{');
    cnn_json_key(json, "op");
    const cnn_op op = read_op(json);
    cnn_json_key(json, "id");
    const int64_t id = cnn_json_integer(json, 0, INT64_MAX);
    cnn_json_key(json, "sources");
    cnn_json_open(json, '[');
    while (cnn_json_item(json)) {
        const cnn_value source = (cnn_value)cnn_json_integer(json, CNN_NONE, graph->num_values - 1);
        if (num_sources == CNN_MAX_SOURCES)
            cnn_json_fail(json, "fewer sources");
        else
            sources[num_sources++] = source;
    }
    const int32_t rank = num_sources > 0 && sources[0] != CNN_NONE ? graph->values[sources[0]].shape.rank : 0;
    cnn_json_key(json, "attributes");
    read_attributes(json, cnn_op_table[op], rank, &attributes);
    cnn_json_key(json, "shape");
    read_shape(json, &shape);
    cnn_json_close(json, '}');
    if (json->status != CNN_OK) return;
    take_status(json, cnn_graph_apply(graph, op, &attributes, num_sources, sources, &result));
    if (json->status != CNN_OK) return;
    graph->steps[graph->num_steps - 1].node.id = (uint64_t)id;
    if (!cnn_shape_equal(&shape, &graph->values[result].shape)) cnn_json_fail(json, "another shape before this");
}

static void read_input(cnn_json *json, cnn_graph *graph)
{
    char name[CNN_NAME_BYTES];
    cnn_shape shape;
    cnn_value value;
    cnn_json_open(json, '{');
    cnn_json_key(json, "name");
    cnn_json_string(json, name, sizeof name);
    cnn_json_key(json, "dtype");
    const cnn_dtype dtype = (cnn_dtype)cnn_json_choice(json, cnn_format_dtypes);
    cnn_json_key(json, "shape");
    read_shape(json, &shape);
    cnn_json_close(json, '}');
    if (json->status == CNN_OK) take_status(json, cnn_graph_input(graph, dtype, &shape, &value));
    if (json->status == CNN_OK) take_status(json, cnn_graph_name(graph, value, name));
}

static void read_output(cnn_json *json, cnn_graph *graph)
{
    char name[CNN_NAME_BYTES];
    const int32_t before = graph->num_outputs;
    cnn_json_open(json, '{');
    cnn_json_key(json, "name");
    cnn_json_string(json, name, sizeof name);
    cnn_json_key(json, "value");
    const cnn_value value = (cnn_value)cnn_json_integer(json, 0, graph->num_values - 1);
    cnn_json_close(json, '}');
    if (json->status == CNN_OK) take_status(json, cnn_graph_output(graph, value));
    if (json->status == CNN_OK && graph->num_outputs == before) cnn_json_fail(json, "another output before this");
    if (json->status == CNN_OK) take_status(json, cnn_graph_name(graph, value, name));
}

/* A constant: its name from the graph, and what the header says of it. They lie one behind the other, wide elements first
 * and then by name. */
static void read_constant(cnn_json *json, cnn_json *header, loading *job)
{
    const cnn_graph *graph = job->graph;
    const cnn_tensor *before = graph->num_values > 0 ? &graph->values[graph->num_values - 1] : NULL;
    char name[CNN_NAME_BYTES];
    cnn_shape shape;
    cnn_value value;
    cnn_json_string(json, name, sizeof name);
    if (json->status != CNN_OK) return;
    cnn_json_key(header, name);
    cnn_json_open(header, '{');
    cnn_json_key(header, "dtype");
    const cnn_dtype dtype = (cnn_dtype)cnn_json_choice(header, cnn_format_tensor_dtypes);
    cnn_json_key(header, "shape");
    read_shape(header, &shape);
    cnn_json_key(header, "data_offsets");
    cnn_json_open(header, '[');
    (void)cnn_json_item(header);
    const int64_t begin = cnn_json_integer(header, 0, INT64_MAX);
    (void)cnn_json_item(header);
    const int64_t end = cnn_json_integer(header, begin, INT64_MAX);
    cnn_json_close(header, ']');
    cnn_json_close(header, '}');
    take_status(json, header->status);
    if (json->status != CNN_OK) return;

    if (before != NULL && before->kind == CNN_VALUE_STATE) {
        const size_t wide = cnn_dtype_bytes(before->dtype), own = cnn_dtype_bytes(dtype);
        if (own > wide || (own == wide && strcmp(before->name, name) >= 0))
            cnn_json_fail(json, "constants in order, each once, before this");
    }
    if (json->status == CNN_OK) take_status(json, cnn_graph_state(job->graph, dtype, &shape, &value));
    if (json->status == CNN_OK) take_status(json, cnn_graph_name(job->graph, value, name));
    if (json->status != CNN_OK) return;
    const size_t bytes = cnn_tensor_bytes(&shape, dtype);
    if ((uint64_t)begin != job->read || (uint64_t)(end - begin) != bytes || bytes > job->data_bytes - job->read)
        cnn_json_fail(header, "the offsets that its shape and those before it give");
    take_status(json, header->status);
    job->read += bytes;
}

/* A name among the wide elements and again among the others; both are in order. */
static bool repeats_name(const cnn_graph *graph)
{
    cnn_value wide = 0, last = graph->num_values;
    while (wide < last && graph->values[wide].kind != CNN_VALUE_STATE) wide++;
    cnn_value narrow = wide;
    while (narrow < last && cnn_dtype_bytes(graph->values[narrow].dtype) == 8) narrow++;
    const cnn_value end = narrow;
    while (wide < end && narrow < last) {
        const int order = strcmp(graph->values[wide].name, graph->values[narrow].name);
        if (order == 0) return true;
        *(order < 0 ? &wide : &narrow) += 1;
    }
    return false;
}

static void read_graph(cnn_json *json, cnn_json *header, loading *job)
{
    cnn_json_open(json, '{');
    cnn_json_key(json, "dtype");
    const cnn_dtype dtype = (cnn_dtype)cnn_json_choice(json, cnn_format_dtypes);
    cnn_json_key(json, "description");
    char *description = cnn_json_long_string(json, job->allocator);
    if (json->status == CNN_OK) take_status(json, cnn_graph_create_with(dtype, job->allocator, &job->graph));
    if (json->status == CNN_OK && description[0] != 0)
        take_status(json, cnn_graph_describe(job->graph, description));
    cnn_release(job->allocator, description);
    if (json->status != CNN_OK) return;
    cnn_json_key(json, "inputs");
    cnn_json_open(json, '[');
    while (cnn_json_item(json)) read_input(json, job->graph);
    cnn_json_key(json, "constants");
    cnn_json_open(json, '[');
    while (cnn_json_item(json)) read_constant(json, header, job);
    if (json->status == CNN_OK && repeats_name(job->graph)) cnn_json_fail(json, "each name once before this");
    cnn_json_key(json, "nodes");
    cnn_json_open(json, '[');
    while (cnn_json_item(json)) read_node(json, job->graph);
    cnn_json_key(json, "outputs");
    cnn_json_open(json, '[');
    while (cnn_json_item(json)) read_output(json, job->graph);
    cnn_json_close(json, '}');
    cnn_json_finish(json);
}

/* ---- the file -------------------------------------------------------------------------------------------------------- */

/* Of the whole file, with zeros where the digits stand. */
static uint32_t checksum_of(const loading *job, const char *digits)
{
    cnn_checksum checksum;
    cnn_checksum_begin(&checksum);
    cnn_checksum_add(&checksum, job->bytes, (size_t)(digits - job->bytes));
    cnn_checksum_add(&checksum, "00000000", CNN_CHECKSUM_DIGITS);
    const char *const rest = digits + CNN_CHECKSUM_DIGITS;
    cnn_checksum_add(&checksum, rest, job->size - (size_t)(rest - job->bytes));
    return cnn_checksum_end(&checksum);
}

static void check_checksum(cnn_json *header, const loading *job)
{
    char digits[CNN_CHECKSUM_DIGITS + 1];
    cnn_json_key(header, "checksum");
    cnn_json_string(header, digits, sizeof digits);
    if (header->status != CNN_OK) return;
    const char *const at = header->at - 1 - CNN_CHECKSUM_DIGITS;
    if (strlen(digits) != CNN_CHECKSUM_DIGITS || memcmp(at, digits, CNN_CHECKSUM_DIGITS) != 0) { /* or escaped */
        cnn_json_fail(header, "eight digits before this");
        return;
    }
    char wanted[CNN_CHECKSUM_DIGITS + 1];
    const uint32_t checksum = checksum_of(job, at);
    for (int i = 0; i < CNN_CHECKSUM_DIGITS; i++) wanted[i] = "0123456789abcdef"[checksum >> (28 - 4 * i) & 15];
    wanted[CNN_CHECKSUM_DIGITS] = 0;
    if (strcmp(digits, wanted) != 0)
        header->status = cnn_fail(CNN_BAD_FILE, "damaged: its checksum is %s, but it says %s", wanted, digits);
}

static void check_version(cnn_json *header)
{
    char format[CNN_NAME_BYTES], version[CNN_NAME_BYTES];
    cnn_json_open(header, '{');
    cnn_json_key(header, "__metadata__");
    cnn_json_open(header, '{');
    cnn_json_key(header, "format");
    cnn_json_string(header, format, sizeof format);
    cnn_json_key(header, "version");
    cnn_json_string(header, version, sizeof version);
    if (header->status != CNN_OK) {
        header->status = cnn_fail_in("no model file", header->status);
    } else if (strcmp(format, CNN_FORMAT_NAME) != 0) {
        header->status =
            cnn_fail(CNN_BAD_FILE, "no model file: its format is \"%s\", expected \"" CNN_FORMAT_NAME "\"", format);
    } else if (strcmp(version, CNN_FORMAT_VERSION) != 0) {
        header->status =
            cnn_fail(CNN_BAD_FILE, "its version is %s, this library reads version " CNN_FORMAT_VERSION, version);
    }
}

static cnn_status read_header(loading *job, cnn_json *header)
{
    check_version(header);
    check_checksum(header, job);
    cnn_json_key(header, "graph");
    char *text = cnn_json_long_string(header, job->allocator);
    cnn_json_close(header, '}');
    if (header->status != CNN_OK) {
        cnn_release(job->allocator, text);
        return header->status;
    }
    cnn_json json = cnn_json_read(text, strlen(text));
    read_graph(&json, header, job);
    cnn_release(job->allocator, text);
    if (header->status == CNN_OK && json.status != CNN_OK) return cnn_fail_in("graph", json.status);
    cnn_json_close(header, '}');
    cnn_json_finish(header);
    if (header->status != CNN_OK) return header->status;
    if (job->read == job->data_bytes) return CNN_OK;
    return cnn_fail(CNN_BAD_FILE, "%zu bytes of data, expected %zu", job->data_bytes, job->read);
}

/* Finds the header and the data; nothing of them is known to be right yet. */
static cnn_status find_parts(loading *job, cnn_json *header)
{
    uint64_t length = 0;
    if (job->size < LENGTH_BYTES)
        return cnn_fail(CNN_BAD_FILE, "no model file: it has %zu bytes, expected more", job->size);
    for (int i = 0; i < LENGTH_BYTES; i++) length |= (uint64_t)(unsigned char)job->bytes[i] << 8 * i;
    if (length > job->size - LENGTH_BYTES || length > CNN_MOST_HEADER_BYTES || length % 8 != 0)
        return cnn_fail(CNN_BAD_FILE,
                        "no model file, or cut short: of %zu bytes %llu are said to be its header, expected at most %d "
                        "in eights",
                        job->size, (unsigned long long)length, CNN_MOST_HEADER_BYTES);
    *header = cnn_json_read(job->bytes + LENGTH_BYTES, (size_t)length);
    job->data = job->bytes + LENGTH_BYTES + length;
    job->data_bytes = job->size - LENGTH_BYTES - (size_t)length;
    return CNN_OK;
}

static cnn_status freeze(const loading *job, const cnn_plan_options *options, cnn_plan **plan)
{
    const cnn_graph *graph = job->graph;
    const void **data = cnn_allocate_zeroed(job->allocator, (size_t)graph->num_values + 1, sizeof *data);
    if (data == NULL) return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a plan");
    size_t offset = 0;
    for (cnn_value v = 0; v < graph->num_values; v++) {
        const cnn_tensor *tensor = &graph->values[v];
        if (tensor->kind != CNN_VALUE_STATE) continue;
        data[v] = job->data + offset;
        offset += cnn_tensor_bytes(&tensor->shape, tensor->dtype);
    }
    const cnn_status status = cnn_plan_freeze(graph, options, data, plan);
    cnn_release(job->allocator, data);
    return blame_file(status);
}

static cnn_status load_aligned(loading *job, const cnn_plan_options *options, cnn_plan **plan)
{
    cnn_json header;
    cnn_status status = find_parts(job, &header);
    if (status == CNN_OK) status = read_header(job, &header);
    if (status == CNN_OK) status = freeze(job, options, plan);
    cnn_graph_free(job->graph);
    return status;
}

static cnn_status check_options(const cnn_plan_options *options)
{
    const uint16_t one = 1;
    if (options != NULL && options->backward)
        return cnn_fail(CNN_INVALID_VALUE, "backward: a plan with constant parameters has none");
    if (options != NULL && options->threads < 0)
        return cnn_fail(CNN_INVALID_VALUE, "threads: got %d, expected 0 or more", options->threads);
    if (*(const unsigned char *)(const void *)&one != 1)
        return cnn_fail(CNN_UNSUPPORTED, "load: model files need a little-endian machine");
    return CNN_OK;
}

cnn_status cnn_plan_load_memory(const void *bytes, size_t size, const cnn_plan_options *options, cnn_plan **plan)
{
    *plan = NULL;
    CNN_TRY(check_options(options));
    const cnn_allocator allocator = cnn_allocator_of(options == NULL ? NULL : options->allocator);
    loading job = {.allocator = &allocator, .bytes = bytes, .size = size};
    if ((uintptr_t)bytes % sizeof(double) == 0) return load_aligned(&job, options, plan);
    char *moved = cnn_allocate(&allocator, size);
    if (moved == NULL) return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for %zu bytes of a file", size);
    memcpy(moved, bytes, size);
    job.bytes = moved;
    const cnn_status status = load_aligned(&job, options, plan);
    cnn_release(&allocator, moved);
    return status;
}

cnn_status cnn_plan_load(const char *path, const cnn_plan_options *options, cnn_plan **plan)
{
    *plan = NULL;
    CNN_TRY(check_options(options));
    const cnn_allocator allocator = cnn_allocator_of(options == NULL ? NULL : options->allocator);
    char *bytes;
    size_t size;
    CNN_TRY(cnn_file_read(&allocator, path, &bytes, &size));
    const cnn_status status = cnn_plan_load_memory(bytes, size, options, plan);
    cnn_release(&allocator, bytes);
    return status == CNN_OK ? CNN_OK : cnn_fail_in(path, status);
}
