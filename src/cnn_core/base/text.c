#include "base/text.h"

static bool continues(unsigned char byte) { return (byte & 0xC0) == 0x80; }

int cnn_utf8_length(const char *text)
{
    const unsigned char *b = (const unsigned char *)text;
    if (b[0] == 0) return 0;
    if (b[0] < 0x80) return 1;
    if (b[0] < 0xC2 || b[0] > 0xF4 || !continues(b[1])) return 0;
    if (b[0] < 0xE0) return 2;
    if ((b[0] == 0xE0 && b[1] < 0xA0) || (b[0] == 0xED && b[1] > 0x9F) || !continues(b[2])) return 0;
    if (b[0] < 0xF0) return 3;
    if ((b[0] == 0xF0 && b[1] < 0x90) || (b[0] == 0xF4 && b[1] > 0x8F) || !continues(b[3])) return 0;
    return 4;
}

bool cnn_text_is_utf8(const char *text)
{
    while (*text != 0) {
        const int length = cnn_utf8_length(text);
        if (length == 0) return false;
        text += length;
    }
    return true;
}
