/* Writing a model file: docs/model-file.md. What is written are operations of the public interface: what was fused is
 * written apart, and fused again when read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checksum.h"
#include "io/format.h"
#include "io/json.h"

const char *const cnn_format_dtypes[] = {[CNN_FLOAT32] = "float32", [CNN_FLOAT64] = "float64", [CNN_INT64] = "int64", NULL};
const char *const cnn_format_tensor_dtypes[] = {[CNN_FLOAT32] = "F32", [CNN_FLOAT64] = "F64", [CNN_INT64] = "I64", NULL};

/* A constant and its name in the file. */
typedef struct constant {
    cnn_value value;
    size_t element; /* bytes */
    char name[CNN_NAME_BYTES];
} constant;

typedef struct saving {
    const cnn_plan *plan;
    cnn_value *number;   /* by value of the plan: its number in the file, CNN_NONE: it is not there (yet) */
    cnn_value next;      /* the number of the next result */
    bool *used;          /* by value: some operation reads it */
    constant *constants; /* in the file's order */
    int32_t num_constants;
    cnn_text graph, header;
    size_t checksum_at; /* where in the file */
    size_t data_bytes, most_bytes; /* of all constants, of the largest */
} saving;

/* ---- constants ----------------------------------------------------------------------------------------------------- */

/* Wide elements first, so that all are aligned; among equals by name, so that a reader sees at once that none comes twice. */
static int by_place(const void *left, const void *right)
{
    const constant *a = left, *b = right;
    if (a->element != b->element) return a->element > b->element ? -1 : 1;
    return strcmp(a->name, b->name);
}

static bool is_taken(const saving *job, const char *name)
{
    for (int32_t i = 0; i < job->num_constants; i++)
        if (strcmp(job->constants[i].name, name) == 0) return true;
    return false;
}

#define SUFFIX_BYTES 13 /* a dot, an int and the end */

/* The value's own name, with a number if somebody else has it. */
static void choose_name(const saving *job, const cnn_tensor *tensor, char name[CNN_NAME_BYTES])
{
    const size_t length = strlen(tensor->name);
    const char *const stem = length == 0 || length + SUFFIX_BYTES > CNN_NAME_BYTES ? "constant" : tensor->name;
    (void)snprintf(name, CNN_NAME_BYTES, "%s", length == 0 ? stem : tensor->name);
    for (int32_t i = 2; is_taken(job, name); i++)
        (void)snprintf(name, CNN_NAME_BYTES, "%.*s.%d", CNN_NAME_BYTES - SUFFIX_BYTES, stem, i);
}

static void list_constants(saving *job)
{
    const cnn_graph *graph = &job->plan->graph;
    for (int32_t s = 0; s < graph->num_steps; s++)
        for (int32_t i = 0; i < graph->steps[s].node.num_sources; i++)
            if (graph->steps[s].source[i] != CNN_NONE) job->used[graph->steps[s].source[i]] = true;
    for (cnn_value v = 0; v < graph->num_values; v++) {
        const cnn_tensor *tensor = &graph->values[v];
        if (!job->used[v] || (tensor->kind != CNN_VALUE_PARAMETER && tensor->kind != CNN_VALUE_STATE)) continue;
        constant made = {.value = v, .element = cnn_dtype_bytes(tensor->dtype)};
        choose_name(job, tensor, made.name);
        job->constants[job->num_constants++] = made;
    }
    qsort(job->constants, (size_t)job->num_constants, sizeof *job->constants, by_place);
}

static void number_values(saving *job)
{
    const cnn_graph *graph = &job->plan->graph;
    for (cnn_value v = 0; v < graph->num_values; v++)
        job->number[v] = graph->values[v].kind == CNN_VALUE_INPUT ? job->next++ : CNN_NONE;
    for (int32_t i = 0; i < job->num_constants; i++) job->number[job->constants[i].value] = job->next++;
}

/* ---- the graph as text ----------------------------------------------------------------------------------------------- */

static void add_shape(cnn_text *text, const cnn_shape *shape)
{
    for (int32_t i = 0; i < shape->rank; i++) {
        cnn_text_add(text, i == 0 ? "[" : ",");
        cnn_text_integer(text, shape->dim[i]);
    }
    cnn_text_add(text, shape->rank == 0 ? "[]" : "]");
}

static void add_element(cnn_text *text, const cnn_field *field, const char *at, int32_t i)
{
    switch (field->kind) {
    case CNN_FIELD_DOUBLE: cnn_text_number(text, ((const double *)(const void *)at)[i]); break;
    case CNN_FIELD_INT32: cnn_text_integer(text, ((const int32_t *)(const void *)at)[i]); break;
    case CNN_FIELD_BOOLEAN: cnn_text_add(text, ((const int32_t *)(const void *)at)[i] ? "true" : "false"); break;
    case CNN_FIELD_NAME: cnn_text_string(text, field->names[*(const int *)(const void *)at]); break;
    case CNN_FIELD_SHAPE: add_shape(text, (const cnn_shape *)(const void *)at); break;
    case CNN_FIELD_INT64:
    case CNN_FIELD_AXES: cnn_text_integer(text, ((const int64_t *)(const void *)at)[i]); break;
    }
}

static void add_attributes(cnn_text *text, const cnn_op_row *row, const cnn_attributes *attributes, int32_t rank)
{
    cnn_text_add(text, "{");
    for (const cnn_field *field = row->fields; field != NULL && field->name != NULL; field++) {
        const bool axes = field->kind == CNN_FIELD_AXES, listed = axes || field->count > 1;
        const int32_t count = axes ? rank : field->count;
        if (field != row->fields) cnn_text_add(text, ",");
        cnn_text_string(text, field->name);
        cnn_text_add(text, listed ? ":[" : ":");
        for (int32_t i = 0; i < count; i++) {
            if (i > 0) cnn_text_add(text, ",");
            add_element(text, field, (const char *)attributes + field->offset, i);
        }
        if (listed) cnn_text_add(text, "]");
    }
    cnn_text_add(text, "}");
}

/* One operation; its result gets the next number. */
static void add_node(saving *job, const cnn_node *node, const cnn_op_row *row, const cnn_attributes *attributes,
                     int32_t num_sources, const cnn_value *sources)
{
    cnn_text *text = &job->graph;
    cnn_text_add(text, text->data[text->bytes - 1] == '[' ? "{\"op\":" : ",{\"op\":");
    cnn_text_string(text, row->name);
    cnn_text_add(text, ",\"id\":");
    cnn_text_integer(text, (int64_t)node->id);
    for (int32_t i = 0; i < num_sources; i++) {
        cnn_text_add(text, i == 0 ? ",\"sources\":[" : ",");
        cnn_text_integer(text, sources[i]);
    }
    cnn_text_add(text, "],\"attributes\":");
    add_attributes(text, row, attributes, node->src_shape[0].rank);
    cnn_text_add(text, ",\"shape\":");
    add_shape(text, &node->dst_shape);
    cnn_text_add(text, "}");
    job->next++;
}

/* An operation and, apart, what is fused behind it. */
static void add_step(saving *job, const cnn_step *step)
{
    const cnn_node *node = &step->node;
    cnn_value sources[CNN_MAX_SOURCES];
    int32_t num_sources = node->num_sources - node->epilogue.adds;
    for (int32_t i = 0; i < node->num_sources; i++)
        sources[i] = step->source[i] == CNN_NONE ? CNN_NONE : job->number[step->source[i]];
    const cnn_value addend = sources[node->num_sources - 1];
    while (num_sources > node->row->min_sources && sources[num_sources - 1] == CNN_NONE) num_sources--;
    add_node(job, node, node->row, &node->attributes, num_sources, sources);
    if (node->epilogue.adds) {
        const cnn_attributes plus = {.affine = {.alpha = 1.0}};
        const cnn_value terms[] = {job->next - 1, addend};
        add_node(job, node, cnn_op_table[CNN_OP_ADD], &plus, 2, terms);
    }
    if (node->epilogue.activates) {
        const cnn_attributes activation = {.activation = node->epilogue.activation};
        const cnn_value before = job->next - 1;
        add_node(job, node, cnn_op_table[CNN_OP_ACTIVATION], &activation, 1, &before);
    }
    job->number[step->result] = job->next - 1;
}

static void write_graph(saving *job)
{
    const cnn_plan *plan = job->plan;
    cnn_text *text = &job->graph;
    cnn_text_add(text, "{\"dtype\":");
    cnn_text_string(text, cnn_format_dtypes[plan->graph.dtype]);
    cnn_text_add(text, ",\"description\":");
    cnn_text_string(text, cnn_plan_description(plan));
    cnn_text_add(text, ",\"inputs\":[");
    for (cnn_value v = 0, count = 0; v < plan->graph.num_values; v++) {
        const cnn_tensor *tensor = &plan->graph.values[v];
        if (tensor->kind != CNN_VALUE_INPUT) continue;
        cnn_text_add(text, count++ == 0 ? "{\"name\":" : ",{\"name\":");
        cnn_text_string(text, tensor->name);
        cnn_text_add(text, ",\"dtype\":");
        cnn_text_string(text, cnn_format_dtypes[tensor->dtype]);
        cnn_text_add(text, ",\"shape\":");
        add_shape(text, &tensor->shape);
        cnn_text_add(text, "}");
    }
    cnn_text_add(text, "],\"constants\":[");
    for (int32_t i = 0; i < job->num_constants; i++) {
        if (i > 0) cnn_text_add(text, ",");
        cnn_text_string(text, job->constants[i].name);
    }
    cnn_text_add(text, "],\"nodes\":[");
    for (int32_t s = 0; s < plan->graph.num_steps && !text->failed; s++) add_step(job, &plan->graph.steps[s]);
    cnn_text_add(text, "],\"outputs\":[");
    for (int32_t i = 0; i < plan->graph.num_outputs; i++) {
        const cnn_value output = cnn_plan_output(plan, i);
        cnn_text_add(text, i == 0 ? "{\"name\":" : ",{\"name\":");
        cnn_text_string(text, plan->graph.values[output].name);
        cnn_text_add(text, ",\"value\":");
        cnn_text_integer(text, job->number[output]);
        cnn_text_add(text, "}");
    }
    cnn_text_add(text, "]}");
}

/* ---- the header ------------------------------------------------------------------------------------------------------ */

#define LENGTH_BYTES 8

static void write_header(saving *job)
{
    cnn_text *text = &job->header;
    cnn_text_add(text, "{\"__metadata__\":{\"format\":\"" CNN_FORMAT_NAME "\",\"version\":\"" CNN_FORMAT_VERSION
                       "\",\"checksum\":\"");
    job->checksum_at = LENGTH_BYTES + text->bytes;
    cnn_text_add(text, "00000000\",\"graph\":");
    if (!job->graph.failed) cnn_text_string(text, job->graph.data);
    cnn_text_add(text, "}");
    for (int32_t i = 0; i < job->num_constants; i++) {
        const cnn_tensor *tensor = &job->plan->graph.values[job->constants[i].value];
        const size_t bytes = cnn_tensor_bytes(&tensor->shape, tensor->dtype);
        cnn_text_add(text, ",");
        cnn_text_string(text, job->constants[i].name);
        cnn_text_add(text, ":{\"dtype\":");
        cnn_text_string(text, cnn_format_tensor_dtypes[tensor->dtype]);
        cnn_text_add(text, ",\"shape\":");
        add_shape(text, &tensor->shape);
        cnn_text_add(text, ",\"data_offsets\":[");
        cnn_text_integer(text, (int64_t)job->data_bytes);
        job->data_bytes = cnn_size_add(job->data_bytes, bytes);
        cnn_text_add(text, ",");
        cnn_text_integer(text, (int64_t)job->data_bytes);
        cnn_text_add(text, "]}");
        if (bytes > job->most_bytes) job->most_bytes = bytes;
    }
    cnn_text_add(text, "}");
    while (!text->failed && (LENGTH_BYTES + text->bytes) % CNN_ALIGNMENT != 0) cnn_text_add(text, " ");
}

static cnn_status prepare(saving *job)
{
    const cnn_allocator *allocator = &job->plan->graph.allocator;
    const size_t values = (size_t)job->plan->graph.num_values + 1;
    job->number = cnn_allocate_zeroed(allocator, values, sizeof *job->number);
    job->used = cnn_allocate_zeroed(allocator, values, sizeof *job->used);
    job->constants = cnn_allocate_zeroed(allocator, values, sizeof *job->constants);
    job->graph.allocator = job->header.allocator = allocator;
    if (job->number != NULL && job->used != NULL && job->constants != NULL) {
        list_constants(job);
        number_values(job);
        write_graph(job);
        write_header(job);
        if (!job->graph.failed && !job->header.failed) {
            if (job->header.bytes <= CNN_MOST_HEADER_BYTES) return CNN_OK;
            return cnn_fail(CNN_UNSUPPORTED, "the graph's text takes %zu bytes, of at most %d", job->header.bytes,
                            CNN_MOST_HEADER_BYTES);
        }
    }
    return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for the text of a graph");
}

static void clean_up(saving *job)
{
    const cnn_allocator *allocator = &job->plan->graph.allocator;
    cnn_release(allocator, job->number);
    cnn_release(allocator, job->used);
    cnn_release(allocator, job->constants);
    cnn_release(allocator, job->graph.data);
    cnn_release(allocator, job->header.data);
}

/* ---- where it goes --------------------------------------------------------------------------------------------------- */

/* A file or memory, one of them NULL. */
typedef struct sink {
    const cnn_new_file *file;
    char *memory;
    cnn_checksum checksum;
} sink;

static cnn_status put(sink *to, const void *bytes, size_t count)
{
    cnn_checksum_add(&to->checksum, bytes, count);
    if (to->file != NULL) return cnn_file_write(to->file, bytes, count);
    memcpy(to->memory, bytes, count);
    to->memory += count;
    return CNN_OK;
}

static cnn_status put_data(const saving *job, sink *to, void *scratch)
{
    for (int32_t i = 0; i < job->num_constants; i++) {
        const cnn_value value = job->constants[i].value;
        const cnn_tensor *tensor = &job->plan->graph.values[value];
        CNN_TRY(cnn_plan_read_constant(job->plan, value, scratch));
        CNN_TRY(put(to, scratch, cnn_tensor_bytes(&tensor->shape, tensor->dtype)));
    }
    return CNN_OK;
}

static cnn_status put_all(const saving *job, sink *to)
{
    unsigned char length[LENGTH_BYTES];
    for (int i = 0; i < LENGTH_BYTES; i++) length[i] = (unsigned char)((uint64_t)job->header.bytes >> 8 * i);
    char digits[CNN_CHECKSUM_DIGITS + 1], *const begin = to->memory;
    cnn_checksum_begin(&to->checksum);
    CNN_TRY(put(to, length, LENGTH_BYTES));
    CNN_TRY(put(to, job->header.data, job->header.bytes));
    void *scratch = cnn_allocate(&job->plan->graph.allocator, job->most_bytes);
    if (scratch == NULL) return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for %zu bytes of weights", job->most_bytes);
    const cnn_status status = put_data(job, to, scratch);
    cnn_release(&job->plan->graph.allocator, scratch);
    CNN_TRY(status);
    (void)snprintf(digits, sizeof digits, "%08lx", (unsigned long)cnn_checksum_end(&to->checksum));
    if (to->file != NULL) return cnn_file_patch(to->file, (long)job->checksum_at, digits, CNN_CHECKSUM_DIGITS);
    memcpy(begin + job->checksum_at, digits, CNN_CHECKSUM_DIGITS);
    return CNN_OK;
}

static cnn_status begin_saving(const cnn_plan *plan, saving *job)
{
    const uint16_t one = 1;
    *job = (saving){.plan = plan};
    if (plan->constants == NULL)
        return cnn_fail(CNN_INVALID_STATE, "save: the plan is not frozen: its parameters are the caller's");
    if (plan->options.final)
        return cnn_fail(CNN_INVALID_STATE, "save: the plan is final: not all of its weights are there as they were");
    if (*(const unsigned char *)(const void *)&one != 1)
        return cnn_fail(CNN_UNSUPPORTED, "save: model files need a little-endian machine");
    return prepare(job);
}

cnn_status cnn_plan_save(const cnn_plan *plan, const char *path)
{
    saving job;
    cnn_new_file file = {0};
    cnn_status status = begin_saving(plan, &job);
    if (status == CNN_OK) {
        status = cnn_file_begin(&plan->graph.allocator, path, &file);
        sink to = {.file = &file};
        if (status == CNN_OK) status = put_all(&job, &to);
        status = cnn_file_end(&file, status);
    }
    clean_up(&job);
    return status;
}

cnn_status cnn_plan_save_memory(const cnn_plan *plan, void *memory, size_t *bytes)
{
    saving job;
    cnn_status status = begin_saving(plan, &job);
    if (status == CNN_OK) {
        const size_t needed = cnn_size_add(LENGTH_BYTES + job.header.bytes, job.data_bytes);
        sink to = {.memory = memory};
        if (memory != NULL && *bytes < needed)
            status = cnn_fail(CNN_INVALID_VALUE, "bytes: got %zu, expected at least %zu", *bytes, needed);
        else if (memory != NULL)
            status = put_all(&job, &to);
        *bytes = needed;
    }
    clean_up(&job);
    return status;
}
