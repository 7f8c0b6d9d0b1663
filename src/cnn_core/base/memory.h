/* Aligned memory and size arithmetic that cannot wrap. */
#ifndef CNN_BASE_MEMORY_H
#define CNN_BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cnn_core.h"

/* A cache line, and the widest vector. */
#define CNN_ALIGNMENT 64

/* NULL when out of memory. Zero bytes give a valid pointer. */
void *cnn_aligned_alloc(size_t bytes);
void cnn_aligned_free(void *memory);

/* Memory from the caller's allocator, aligned to CNN_ALIGNMENT; without one (`allocate` is NULL), as above. */
void *cnn_allocate(const cnn_allocator *allocator, size_t bytes);
/* The same for an array, all zero. */
void *cnn_allocate_zeroed(const cnn_allocator *allocator, size_t count, size_t element);
void cnn_release(const cnn_allocator *allocator, void *memory); /* NULL is fine */

/* Sizes add and multiply with saturation at CNN_SIZE_LIMIT: compare once, at the end. The limit leaves headroom so that
 * rounding up to the alignment cannot wrap. */
#define CNN_SIZE_LIMIT ((size_t)(SIZE_MAX / 4))

static inline size_t cnn_size_add(size_t a, size_t b)
{
    return a > CNN_SIZE_LIMIT || b > CNN_SIZE_LIMIT - a ? CNN_SIZE_LIMIT : a + b;
}

static inline size_t cnn_size_mul(size_t a, size_t b)
{
    return a != 0 && b > CNN_SIZE_LIMIT / a ? CNN_SIZE_LIMIT : a * b;
}

static inline size_t cnn_size_align(size_t bytes)
{
    return bytes >= CNN_SIZE_LIMIT ? CNN_SIZE_LIMIT : (bytes + (CNN_ALIGNMENT - 1)) & ~(size_t)(CNN_ALIGNMENT - 1);
}

/* Bytes of n floats, rounded up so that buffers laid one behind the other stay aligned. */
static inline size_t cnn_float_bytes(int64_t n)
{
    return cnn_size_align(cnn_size_mul((size_t)n, sizeof(float)));
}

static inline size_t cnn_dtype_bytes(cnn_dtype dtype)
{
    return dtype == CNN_FLOAT32 ? 4 : 8;
}

static inline int64_t cnn_min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t cnn_max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline int64_t cnn_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* `total` things in `parts` parts of nearly equal size, larger and smaller ones mixed, so that neighbouring parts together
 * are nearly equal too: where part i begins. */
static inline int64_t cnn_split(int64_t total, int64_t parts, int64_t i)
{
    return total / parts * i + total % parts * i / parts;
}

/* A workspace cut front to back: `cursor` starts at the workspace, each cut is aligned. */
static inline void *cnn_take(char **cursor, size_t bytes)
{
    void *taken = *cursor;
    *cursor += cnn_size_align(bytes);
    return taken;
}

#endif
