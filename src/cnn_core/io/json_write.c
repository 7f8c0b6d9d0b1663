#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "io/json.h"

static void add_bytes(cnn_text *text, const char *from, size_t bytes)
{
    if (text->failed) return;
    if (text->capacity - text->bytes <= bytes) {
        const size_t wanted = cnn_size_add(cnn_size_mul(text->capacity, 2), cnn_size_add(bytes, 256));
        char *moved = cnn_allocate(text->allocator, wanted);
        if (moved == NULL) {
            text->failed = true;
            return;
        }
        if (text->bytes > 0) memcpy(moved, text->data, text->bytes);
        cnn_release(text->allocator, text->data);
        text->data = moved;
        text->capacity = wanted;
    }
    memcpy(text->data + text->bytes, from, bytes);
    text->bytes += bytes;
    text->data[text->bytes] = 0;
}

void cnn_text_add(cnn_text *text, const char *plain) { add_bytes(text, plain, strlen(plain)); }

void cnn_text_integer(cnn_text *text, int64_t value)
{
    char digits[32];
    (void)snprintf(digits, sizeof digits, "%lld", (long long)value);
    cnn_text_add(text, digits);
}

void cnn_text_number(cnn_text *text, double value)
{
    if (!isfinite(value)) {
        cnn_text_add(text, isnan(value) ? "\"NaN\"" : (value > 0 ? "\"Infinity\"" : "\"-Infinity\""));
        return;
    }
    char digits[64], plain[64];
    for (int precision = 15; precision <= 17; precision++) {
        (void)snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value) break;
    }
    /* Whatever the program's locale has for a decimal point. */
    size_t used = 0;
    for (const char *c = digits; *c != 0; c++) {
        if (strchr("+-0123456789e", *c) != NULL)
            plain[used++] = *c;
        else if (used > 0 && plain[used - 1] != '.')
            plain[used++] = '.';
    }
    add_bytes(text, plain, used);
}

void cnn_text_string(cnn_text *text, const char *value)
{
    add_bytes(text, "\"", 1);
    for (const char *c = value; *c != 0; c++) {
        char escape[8];
        if (*c == '"' || *c == '\\') {
            escape[0] = '\\';
            escape[1] = *c;
            add_bytes(text, escape, 2);
        } else if ((unsigned char)*c < 0x20) {
            (void)snprintf(escape, sizeof escape, "\\u%04x", (unsigned)*c);
            add_bytes(text, escape, 6);
        } else {
            add_bytes(text, c, 1);
        }
    }
    add_bytes(text, "\"", 1);
}
