#include "ops/transpose.h"

#include "base/memory.h"
#include "thread/thread.h"

#define TILE 16 /* a line of cache each way */

typedef struct transpose_job {
    int64_t rows, cols, row_tiles;
    const float *src;
    float *dst;
} transpose_job;

static void transpose_rows(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const transpose_job *job = arg;
    const int64_t rows = job->rows, cols = job->cols;
    const float *src = job->src + task / job->row_tiles * rows * cols;
    float *dst = job->dst + task / job->row_tiles * rows * cols;
    const int64_t first = task % job->row_tiles * TILE, last = cnn_min_i64(first + TILE, rows);
    for (int64_t tile = 0; tile < cols; tile += TILE)
        for (int64_t c = tile; c < cnn_min_i64(tile + TILE, cols); c++)
            for (int64_t r = first; r < last; r++) dst[c * rows + r] = src[r * cols + c];
}

void cnn_transpose(int32_t threads, int64_t n, int64_t rows, int64_t cols, const float *src, float *dst)
{
    transpose_job job = {rows, cols, cnn_ceil_div(rows, TILE), src, dst};
    const double work = (double)n * (double)rows * (double)cols;
    cnn_parallel(cnn_useful_threads(threads, work), n * job.row_tiles, transpose_rows, &job);
}
