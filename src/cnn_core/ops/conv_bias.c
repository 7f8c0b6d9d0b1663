/* The gradient of a bias: a sum over all pixels. */
#include "ops/conv.h"
#include "ops/conv_tiling.h"

#define BLOCK_ROWS 256  /* summed in float, in registers */
#define MOST_BLOCKS 256 /* beyond that, blocks are longer */

static int64_t count_blocks(int64_t rows) { return cnn_min_i64(cnn_ceil_div(rows, BLOCK_ROWS), MOST_BLOCKS); }

size_t cnn_conv_bias_workspace(int64_t rows, int64_t channels)
{
    return cnn_size_align(cnn_size_mul((size_t)count_blocks(rows), cnn_size_mul((size_t)channels, sizeof(float))));
}

typedef struct bias_job {
    const cnn_kernels *kernels;
    int64_t rows, channels, blocks;
    const float *diff_dst;
    float *sums; /* [blocks][channels] */
} bias_job;

static void sum_block(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const bias_job *job = arg;
    const int64_t first = cnn_split(job->rows, job->blocks, task);
    const int64_t rows = cnn_split(job->rows, job->blocks, task + 1) - first;
    job->kernels->conv.column_sums(rows, job->channels, job->diff_dst + first * job->channels, job->channels,
                                   job->sums + task * job->channels);
}

void cnn_conv_bias_backward(const cnn_kernels *kernels, int32_t threads, int64_t rows, int64_t channels,
                            const float *diff_dst, void *workspace, float *diff_bias)
{
    bias_job job = {kernels, rows, channels, count_blocks(rows), diff_dst, workspace};
    const double work = 0.5 * (double)rows * (double)channels;
    cnn_parallel(cnn_useful_threads(threads, work), job.blocks, sum_block, &job);
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0.0;
        for (int64_t b = 0; b < job.blocks; b++) sum += (double)job.sums[b * channels + c];
        diff_bias[c] += (float)sum;
    }
}
