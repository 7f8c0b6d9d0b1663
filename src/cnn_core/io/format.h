/* The model file, as docs/model-file.md describes it; what its writer and its reader have in common. */
#ifndef CNN_IO_FORMAT_H
#define CNN_IO_FORMAT_H

#include "graph/plan.h"

#define CNN_FORMAT_NAME "cnn"
#define CNN_FORMAT_VERSION "1"
#define CNN_CHECKSUM_DIGITS 8
#define CNN_MOST_HEADER_BYTES (8 << 20)

/* By cnn_dtype, as the graph and as safetensors calls them; they end with NULL. */
extern const char *const cnn_format_dtypes[], *const cnn_format_tensor_dtypes[];

/* Files by name, of the platform's kind. (file.c) */
cnn_status cnn_file_read(const cnn_allocator *allocator, const char *path, char **bytes, size_t *size);

/* A file in the making, beside the one that it will replace. */
typedef struct cnn_new_file {
    const cnn_allocator *allocator;
    const char *path;
    char *temporary; /* its name until then */
    void *stream;    /* FILE */
} cnn_new_file;

cnn_status cnn_file_begin(const cnn_allocator *allocator, const char *path, cnn_new_file *file);
cnn_status cnn_file_write(const cnn_new_file *file, const void *bytes, size_t count);
/* Overwrites what was written at `offset`. */
cnn_status cnn_file_patch(const cnn_new_file *file, long offset, const void *bytes, size_t count);
/* Puts the file in its place if `status` is CNN_OK, else removes it; returns the first failure. */
cnn_status cnn_file_end(cnn_new_file *file, cnn_status status);

#endif
