#include "graph/arena.h"

#include <stdlib.h>

#include "base/status.h"

/* Largest first; among equals the earlier one, so that the order, and with it the layout, is always the same. */
static int by_size(const void *left, const void *right)
{
    const cnn_buffer *a = left, *b = right;
    if (a->bytes != b->bytes) return a->bytes > b->bytes ? -1 : 1;
    if (a->first != b->first) return a->first < b->first ? -1 : 1;
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static int by_offset(const void *left, const void *right)
{
    const size_t a = *(*(const cnn_buffer *const *)left)->offset, b = *(*(const cnn_buffer *const *)right)->offset;
    return a < b ? -1 : a > b;
}

cnn_status cnn_arena_place(const cnn_allocator *allocator, cnn_buffer *buffers, int32_t count, size_t *bytes)
{
    *bytes = 0;
    if (count == 0) return CNN_OK;
    const cnn_buffer **neighbours = cnn_allocate(allocator, (size_t)count * sizeof *neighbours);
    if (neighbours == NULL) return cnn_fail(CNN_OUT_OF_MEMORY, "no memory to plan %d buffers", count);
    qsort(buffers, (size_t)count, sizeof *buffers, by_size);
    for (int32_t i = 0; i < count; i++) {
        size_t num_neighbours = 0;
        for (int32_t j = 0; j < i; j++)
            if (buffers[j].first <= buffers[i].last && buffers[i].first <= buffers[j].last)
                neighbours[num_neighbours++] = &buffers[j];
        qsort(neighbours, num_neighbours, sizeof *neighbours, by_offset);
        size_t offset = 0;
        const size_t wanted = cnn_size_align(buffers[i].bytes);
        for (size_t j = 0; j < num_neighbours; j++) {
            if (*neighbours[j]->offset >= cnn_size_add(offset, wanted)) break;
            const size_t end = cnn_size_add(*neighbours[j]->offset, cnn_size_align(neighbours[j]->bytes));
            if (end > offset) offset = end;
        }
        *buffers[i].offset = offset;
        const size_t end = cnn_size_add(offset, wanted);
        if (end > *bytes) *bytes = end;
    }
    cnn_release(allocator, neighbours);
    return CNN_OK;
}
