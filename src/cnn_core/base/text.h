/* Text. */
#ifndef CNN_BASE_TEXT_H
#define CNN_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of the UTF-8 character that begins here: 1 to 4, or 0 where none does: a stray or missing continuation, one that
 * is longer than need be, a surrogate, a number above U+10FFFF. A zero byte is none, so that a string's end is safe. */
int cnn_utf8_length(const char *text);
bool cnn_text_is_utf8(const char *text);

#endif
