#include "io/checksum.h"

/* Eight bytes a step, each through a table of its own: Kounavis and Berry, "A Systematic Approach to Building High
 * Performance Software-Based CRC Generators", 2005. */
void cnn_checksum_begin(cnn_checksum *checksum)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t value = byte;
        for (int bit = 0; bit < 8; bit++) value = value & 1 ? value >> 1 ^ UINT32_C(0xEDB88320) : value >> 1;
        checksum->table[0][byte] = value;
    }
    for (int k = 1; k < 8; k++)
        for (int byte = 0; byte < 256; byte++) {
            const uint32_t before = checksum->table[k - 1][byte];
            checksum->table[k][byte] = before >> 8 ^ checksum->table[0][before & 255];
        }
    checksum->state = UINT32_MAX;
}

static uint32_t four_bytes(const unsigned char *b)
{
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

void cnn_checksum_add(cnn_checksum *checksum, const void *bytes, size_t count)
{
    const unsigned char *at = bytes;
    uint32_t state = checksum->state;
    for (; count >= 8; count -= 8, at += 8) {
        const uint32_t low = state ^ four_bytes(at), high = four_bytes(at + 4);
        state = checksum->table[7][low & 255] ^ checksum->table[6][low >> 8 & 255] ^
                checksum->table[5][low >> 16 & 255] ^ checksum->table[4][low >> 24] ^
                checksum->table[3][high & 255] ^ checksum->table[2][high >> 8 & 255] ^
                checksum->table[1][high >> 16 & 255] ^ checksum->table[0][high >> 24];
    }
    for (; count > 0; count--, at++) state = state >> 8 ^ checksum->table[0][(state ^ *at) & 255];
    checksum->state = state;
}

uint32_t cnn_checksum_end(const cnn_checksum *checksum) { return ~checksum->state; }
