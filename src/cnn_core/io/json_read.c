#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "base/text.h"
#include "io/json.h"

cnn_json cnn_json_read(const char *text, size_t bytes)
{
    return (cnn_json){.begin = text, .at = text, .end = text + bytes, .first = true};
}

void cnn_json_fail(cnn_json *json, const char *expected)
{
    if (json->status != CNN_OK) return;
    json->status =
        cnn_fail(CNN_BAD_FILE, "byte %lld: expected %s", (long long)(json->at - json->begin), expected);
}

/* ---- structure ---------------------------------------------------------------------------------------------------- */

/* The next character that is no space; 0 at the end and after a failure. */
static char look(cnn_json *json)
{
    while (json->at < json->end && (*json->at == ' ' || *json->at == '\t' || *json->at == '\n' || *json->at == '\r'))
        json->at++;
    return json->status == CNN_OK && json->at < json->end ? *json->at : 0;
}

static void expect(cnn_json *json, char wanted)
{
    const char quoted[] = {'\'', wanted, '\'', 0};
    if (look(json) == wanted)
        json->at++;
    else
        cnn_json_fail(json, quoted);
}

void cnn_json_open(cnn_json *json, char bracket)
{
    expect(json, bracket);
    json->first = true;
}

void cnn_json_close(cnn_json *json, char bracket)
{
    expect(json, bracket);
    json->first = false;
}

void cnn_json_key(cnn_json *json, const char *name)
{
    char found[CNN_NAME_BYTES], expected[CNN_NAME_BYTES + 16];
    if (!json->first) expect(json, ',');
    json->first = false;
    (void)look(json);
    const char *const begin = json->at;
    cnn_json_string(json, found, sizeof found);
    if (json->status == CNN_OK && strcmp(found, name) != 0) {
        json->at = begin;
        (void)strcat(strcat(strcpy(expected, "member \""), name), "\"");
        cnn_json_fail(json, expected);
    }
    expect(json, ':');
}

bool cnn_json_item(cnn_json *json)
{
    if (look(json) == ']') {
        cnn_json_close(json, ']');
        return false;
    }
    if (!json->first) expect(json, ',');
    json->first = false;
    return json->status == CNN_OK;
}

void cnn_json_finish(cnn_json *json)
{
    if (look(json) != 0) cnn_json_fail(json, "the end");
}

/* ---- numbers ------------------------------------------------------------------------------------------------------ */

static void pass_digits(cnn_json *json)
{
    if (json->at == json->end || *json->at < '0' || *json->at > '9') cnn_json_fail(json, "a digit");
    while (json->at < json->end && *json->at >= '0' && *json->at <= '9') json->at++;
}

/* A sign and digits, of which the first is 0 only if it is the only one. */
static void pass_integer(cnn_json *json)
{
    if (look(json) == '-') json->at++;
    if (json->end - json->at > 1 && json->at[0] == '0' && json->at[1] >= '0' && json->at[1] <= '9')
        cnn_json_fail(json, "a number without leading zeros");
    pass_digits(json);
}

int64_t cnn_json_integer(cnn_json *json, int64_t low, int64_t high)
{
    (void)look(json);
    const char *const begin = json->at;
    pass_integer(json);
    const char next = json->at < json->end ? *json->at : 0;
    if (next == '.' || next == 'e' || next == 'E') cnn_json_fail(json, "an integer");
    if (json->status != CNN_OK) return 0;
    const bool negative = *begin == '-';
    uint64_t magnitude = 0;
    const uint64_t most = negative ? (uint64_t)INT64_MAX + 1 : (uint64_t)INT64_MAX;
    for (const char *digit = begin + negative; digit < json->at; digit++) {
        const uint64_t value = (uint64_t)(*digit - '0');
        if (magnitude > (most - value) / 10) {
            json->at = begin;
            cnn_json_fail(json, "an integer of 64 bits");
            return 0;
        }
        magnitude = 10 * magnitude + value;
    }
    const int64_t value = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    if (value >= low && value <= high) return value;
    json->at = begin;
    cnn_json_fail(json, "an integer in another range");
    return 0;
}

bool cnn_json_boolean(cnn_json *json)
{
    static const char *const words[] = {"false", "true"};
    (void)look(json);
    for (int i = 0; i < 2 && json->status == CNN_OK; i++) {
        const size_t length = strlen(words[i]);
        if ((size_t)(json->end - json->at) < length || memcmp(json->at, words[i], length) != 0) continue;
        json->at += length;
        return i == 1;
    }
    cnn_json_fail(json, "true or false");
    return false;
}

#define NUMBER_BYTES 64

/* strtod wants the decimal point of the program's locale. */
static double convert(const char *begin, const char *end)
{
    char text[NUMBER_BYTES + 32];
    size_t used = 0;
    const char *const point = localeconv()->decimal_point;
    for (const char *c = begin; c < end; c++) {
        if (*c != '.') {
            text[used++] = *c;
        } else {
            memcpy(text + used, point, strlen(point));
            used += strlen(point);
        }
    }
    text[used] = 0;
    return strtod(text, NULL);
}

double cnn_json_number(cnn_json *json)
{
    static const char *const words[] = {"Infinity", "-Infinity", "NaN", NULL};
    static const double values[] = {(double)INFINITY, (double)-INFINITY, (double)NAN};
    if (look(json) == '"') {
        const int32_t word = cnn_json_choice(json, words);
        return values[word];
    }
    const char *const begin = json->at;
    pass_integer(json);
    if (json->at < json->end && *json->at == '.') {
        json->at++;
        pass_digits(json);
    }
    if (json->at < json->end && (*json->at == 'e' || *json->at == 'E')) {
        json->at++;
        if (json->at < json->end && (*json->at == '+' || *json->at == '-')) json->at++;
        pass_digits(json);
    }
    if (json->status != CNN_OK) return 0.0;
    const bool fits = json->at - begin < NUMBER_BYTES;
    const double value = fits ? convert(begin, json->at) : 0.0;
    if (fits && isfinite(value)) return value;
    json->at = begin;
    cnn_json_fail(json, "a number of fewer digits that is finite");
    return 0.0;
}

/* ---- strings ------------------------------------------------------------------------------------------------------ */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The four digits behind \u; 0, which no text may hold, if they are none. */
static uint32_t read_unit(cnn_json *json)
{
    uint32_t unit = 0;
    for (int i = 0; i < 4; i++) {
        const int digit = json->at < json->end ? hex_digit(*json->at) : -1;
        if (digit < 0) return 0;
        unit = 16 * unit + (uint32_t)digit;
        json->at++;
    }
    return unit;
}

/* Writes the character that \u stands for, which may take two of them, and returns its bytes; 0: it is none. */
static int read_escaped_unit(cnn_json *json, char to[4])
{
    uint32_t point = read_unit(json);
    if (point >= 0xD800 && point < 0xDC00) {
        if (json->end - json->at < 2 || json->at[0] != '\\' || json->at[1] != 'u') return 0;
        json->at += 2;
        const uint32_t low = read_unit(json);
        if (low < 0xDC00 || low > 0xDFFF) return 0;
        point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
    } else if (point == 0 || (point >= 0xDC00 && point < 0xE000)) {
        return 0;
    }
    if (point < 0x80) {
        to[0] = (char)point;
        return 1;
    }
    const int length = point < 0x800 ? 2 : (point < 0x10000 ? 3 : 4);
    static const unsigned char leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (int i = length - 1; i > 0; i--, point >>= 6) to[i] = (char)(0x80 | (point & 0x3F));
    to[0] = (char)(leads[length] | point);
    return length;
}

/* Reads one character of a string, resolved, into `to`, and returns its bytes; 0: it is none. */
static int read_character(cnn_json *json, char to[4])
{
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    if (*json->at != '\\') {
        char ahead[5] = {0};
        const size_t left = (size_t)(json->end - json->at);
        memcpy(ahead, json->at, left < 4 ? left : 4);
        const int length = cnn_utf8_length(ahead);
        if (length == 0 || (unsigned char)ahead[0] < 0x20) return 0;
        memcpy(to, ahead, (size_t)length);
        json->at += length;
        return length;
    }
    if (json->end - json->at < 2) return 0;
    const char escape = json->at[1];
    json->at += 2;
    if (escape == 'u') return read_escaped_unit(json, to);
    const char *const known = escape == 0 ? NULL : strchr(escapes, escape);
    if (known == NULL) return 0;
    to[0] = meanings[known - escapes];
    return 1;
}

void cnn_json_string(cnn_json *json, char *text, size_t room)
{
    text[0] = 0;
    expect(json, '"');
    const char *const begin = json->at;
    size_t used = 0;
    while (json->status == CNN_OK) {
        char character[4];
        if (json->at < json->end && *json->at == '"') {
            json->at++;
            text[used] = 0;
            return;
        }
        const int length = json->at < json->end ? read_character(json, character) : 0;
        if (length == 0) {
            cnn_json_fail(json, "a string of UTF-8 and its end");
        } else if (used + (size_t)length >= room) {
            json->at = begin;
            cnn_json_fail(json, "a shorter string");
        } else {
            memcpy(text + used, character, (size_t)length);
            used += (size_t)length;
        }
    }
    text[0] = 0;
}

char *cnn_json_long_string(cnn_json *json, const cnn_allocator *allocator)
{
    (void)look(json);
    /* Resolved, a string is never longer than as it stands. Its end is the first quote that no backslash is before. */
    const size_t left = (size_t)(json->end - json->at);
    size_t room = 1;
    while (room < left && json->at[room] != '"') room += json->at[room] == '\\' ? 2 : 1;
    if (json->status != CNN_OK || room >= left) {
        cnn_json_fail(json, "a string");
        return NULL;
    }
    char *text = cnn_allocate(allocator, room);
    if (text == NULL) {
        json->status = cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a text of %zu bytes", room);
        return NULL;
    }
    cnn_json_string(json, text, room);
    if (json->status == CNN_OK) return text;
    cnn_release(allocator, text);
    return NULL;
}

int32_t cnn_json_choice(cnn_json *json, const char *const *names)
{
    char found[CNN_NAME_BYTES];
    (void)look(json);
    const char *const begin = json->at;
    cnn_json_string(json, found, sizeof found);
    for (int32_t i = 0; json->status == CNN_OK && names[i] != NULL; i++)
        if (strcmp(names[i], found) == 0) return i;
    if (json->status == CNN_OK) json->at = begin;
    cnn_json_fail(json, "a name that this version knows");
    return 0;
}
