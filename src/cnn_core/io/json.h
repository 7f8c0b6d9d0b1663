/* JSON, as much as a file of our own needs.
 *
 * The reader is a cursor that is told what comes next, member by member, so that it neither stores nor recurses: what a
 * file may hold is written down in the order of the calls. The first failure sticks: every later call does nothing and
 * returns nothing, so that one look at `status` suffices before what was read is used.
 *
 * The writer appends to a text that grows; it too fails once and for all. */
#ifndef CNN_IO_JSON_H
#define CNN_IO_JSON_H

#include "base/memory.h"

typedef struct cnn_json {
    const char *begin, *at, *end;
    bool first; /* nothing stands before in this object or array */
    cnn_status status;
} cnn_json;

cnn_json cnn_json_read(const char *text, size_t bytes);
/* Fails with CNN_BAD_FILE and the place; `expected` says what should stand there. */
void cnn_json_fail(cnn_json *json, const char *expected);
/* After '{' and '[', and their ends. */
void cnn_json_open(cnn_json *json, char bracket);
void cnn_json_close(cnn_json *json, char bracket);
/* The next member of an object, which must have this name. */
void cnn_json_key(cnn_json *json, const char *name);
/* True where an array has one more element; at its end false, and the bracket is passed. */
bool cnn_json_item(cnn_json *json);
/* Nothing but space is left. */
void cnn_json_finish(cnn_json *json);

int64_t cnn_json_integer(cnn_json *json, int64_t low, int64_t high);
bool cnn_json_boolean(cnn_json *json);
/* A finite number, or one of the strings "Infinity", "-Infinity" and "NaN". */
double cnn_json_number(cnn_json *json);
/* A string of UTF-8 without zeros, its escapes resolved, in `room` bytes with the zero behind it. */
void cnn_json_string(cnn_json *json, char *text, size_t room);
/* The same in memory of its own, for the caller to release; NULL on failure. */
char *cnn_json_long_string(cnn_json *json, const cnn_allocator *allocator);
/* The number of the string among `names`, which end with NULL. */
int32_t cnn_json_choice(cnn_json *json, const char *const *names);

typedef struct cnn_text {
    const cnn_allocator *allocator;
    char *data; /* `bytes` of them, and a zero */
    size_t bytes, capacity;
    bool failed; /* no memory */
} cnn_text;

void cnn_text_add(cnn_text *text, const char *plain);
void cnn_text_integer(cnn_text *text, int64_t value);
void cnn_text_number(cnn_text *text, double value);  /* the shortest decimals that read back as the same number */
void cnn_text_string(cnn_text *text, const char *value); /* in quotes, escaped */

#endif
