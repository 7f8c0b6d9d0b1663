/* Rewriting a plan's copy of the graph before memory is planned. Results keep their numbers; those that nobody computes any
 * more have no producer. */
#ifndef CNN_GRAPH_PASSES_H
#define CNN_GRAPH_PASSES_H

#include "graph/graph.h"

/* Operations whose results nobody needs go. For graphs that update no states. (fuse.c) */
cnn_status cnn_graph_prune(cnn_graph *graph);

/* Operations that do nothing go; activations and additions move behind the operation whose result they take (ops/op.h:
 * cnn_epilogue), where its row can do that. `backward`: there will be a backward run. (fuse.c) */
cnn_status cnn_graph_fuse(cnn_graph *graph, bool backward);

/* Constant parameters by value: what the caller gave, and what folding made. Weights are not scaled before they are packed:
 * nobody needs the memory for a second copy of all of them. */
typedef struct cnn_constants {
    const void **data; /* [capacity]; NULL: none */
    double **scale;    /* [capacity]: what the row's `rescale` still has to scale data by, or NULL */
    void **made;       /* [capacity]: data that is to be freed */
    int32_t capacity;  /* as many values as the graph can have */
} cnn_constants;

/* Operations that scale and shift channels by constants, as batch normalization does in evaluation, go into the weights
 * and bias of the convolution or linear layer before them. `given` is indexed by value. (fold.c) */
cnn_status cnn_graph_fold(cnn_graph *graph, const void *const *given, cnn_constants *constants);
void cnn_constants_free(const cnn_allocator *allocator, cnn_constants *constants);

/* How often each value is read, being an output included; from the graph's allocator, for the caller to release. NULL: no memory. */
int32_t *cnn_graph_uses(const cnn_graph *graph);
/* Takes a step out, as far as everybody else is concerned; its result has no producer until somebody else gives it. */
void cnn_graph_drop(cnn_graph *graph, int32_t step);
/* Closes the gaps that dropped steps left. */
void cnn_graph_compact(cnn_graph *graph);
/* Everybody who read value `from` reads `to`. */
void cnn_graph_redirect(cnn_graph *graph, int32_t *uses, cnn_value from, cnn_value to);

#endif
