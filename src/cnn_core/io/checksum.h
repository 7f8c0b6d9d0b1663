/* CRC-32 as zip, PNG and zlib have it (ISO 3309, polynomial 0xEDB88320 reflected): any change within four neighbouring
 * bytes shows, and anybody can check it. */
#ifndef CNN_IO_CHECKSUM_H
#define CNN_IO_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

typedef struct cnn_checksum {
    uint32_t table[8][256]; /* [k][b]: what byte b does when k bytes follow it */
    uint32_t state;
} cnn_checksum;

void cnn_checksum_begin(cnn_checksum *checksum);
void cnn_checksum_add(cnn_checksum *checksum, const void *bytes, size_t count);
uint32_t cnn_checksum_end(const cnn_checksum *checksum);

#endif
