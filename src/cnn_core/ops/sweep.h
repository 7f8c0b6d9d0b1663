/* One pass over a table of segments: the work is cut by the segments' lengths laid end to end, so that many small segments
 * cost no more than one large one. */
#ifndef CNN_OPS_SWEEP_H
#define CNN_OPS_SWEEP_H

#include "base/status.h"
#include "cpu/kernels.h"

/* A pass has at most so many tasks: the length of arrays of partial results. */
#define CNN_SWEEP_TASKS 256

typedef struct cnn_sweep {
    cnn_dtype dtype;
    int64_t num_segments;
    const cnn_segment *segments;
    int64_t total, block, tasks;
    const cnn_kernels *kernels;
} cnn_sweep;

/* What of a segment an operation reads. */
enum { CNN_SWEEP_WEIGHTS = 1, CNN_SWEEP_DIFF_WEIGHTS = 2, CNN_SWEEP_LR_SCALE = 4, CNN_SWEEP_WEIGHT_DECAY = 8 };

/* Checks dtype and the segments as far as `reads` says, and cuts the work. */
cnn_status cnn_sweep_prepare(cnn_dtype dtype, int64_t num_segments, const cnn_segment *segments, int reads,
                             cnn_sweep *sweep);

/* Elements start .. start+n-1 of a segment, which belong to task `task`. */
typedef void cnn_piece_fn(void *arg, const cnn_segment *segment, int64_t start, int64_t n, int64_t task);

/* Calls fn for every piece, the pieces of one task in order; an element costs about `cost` nanoseconds of one core. */
void cnn_sweep_run(const cnn_sweep *sweep, double cost, cnn_piece_fn *fn, void *arg);

/* Fails unless the value is a number >= 0; the message calls it `name`. */
cnn_status cnn_check_not_negative(const char *name, double value);

/* Element `start` of an array of the sweep's dtype. */
static inline void *cnn_sweep_at(cnn_dtype dtype, void *array, int64_t start)
{
    return dtype == CNN_FLOAT64 ? (void *)((double *)array + start) : (void *)((float *)array + start);
}

#endif
