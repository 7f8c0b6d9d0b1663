/* Offsets for buffers with lifetimes: two buffers overlap in memory only if they never live at the same time. */
#ifndef CNN_GRAPH_ARENA_H
#define CNN_GRAPH_ARENA_H

#include "base/memory.h"

typedef struct cnn_buffer {
    size_t bytes;
    int32_t first, last; /* the times between which it lives, both included */
    size_t *offset;      /* where to write the answer */
} cnn_buffer;

/* Places the buffers, largest first, each at the lowest offset where it fits (greedy by size: Pisarchyk and Lee,
 * "Efficient Memory Management for Deep Neural Net Inference", 2020). Reorders `buffers`; *bytes = what all need. */
cnn_status cnn_arena_place(const cnn_allocator *allocator, cnn_buffer *buffers, int32_t count, size_t *bytes);

#endif
