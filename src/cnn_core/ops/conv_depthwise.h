/* Depthwise convolution by rows, as the files share it that compute its passes: forward and backward data
 * (conv_depthwise_rows.c), backward weights (conv_depthwise_sums.c), and both gradients from one reading
 * (conv_depthwise_joint.c). */
#ifndef CNN_OPS_CONV_DEPTHWISE_H
#define CNN_OPS_CONV_DEPTHWISE_H

#include "ops/conv.h"
#include "ops/conv_geometry.h"

#define CNN_DEPTHWISE_TAPS 5 /* rows of a kernel, at most */

typedef struct cnn_depthwise_plan {
    cnn_conv_pass pass;
    int64_t channels, vectors, width;
    int64_t taps;                     /* of the kernel */
    int64_t strips, bands, band_rows; /* of an image; rows of the largest */
    int64_t shares;                   /* backward weights: of the rows of all images */
    int64_t ahead;                    /* pixels by which rows are fetched ahead */
    int64_t some_rows;                /* that are gone over for all channels, then the next */
    size_t axes_bytes, weights_bytes, sums_bytes, kernel_bytes;
    size_t row_bytes, made_bytes, back_made_bytes; /* of one thread */
} cnn_depthwise_plan;

cnn_depthwise_plan cnn_depthwise_plan_of(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels);

typedef struct cnn_depthwise_job {
    const cnn_depthwise_plan *plan;
    const cnn_conv_call *call;
    cnn_conv_axes axes;
    const float *weights; /* [vectors][taps][width] */
    float *to_weights;    /* the same, while they are packed; NULL: they came packed */
    float *sums;          /* [shares][vectors][taps][width] */
    int64_t kernel_rows;  /* that see a row of x */
    cnn_depthwise_tap *kernel;
    char *scratch;
} cnn_depthwise_job;

/* Channels begin .. end - 1. The last vector of the last strip is shifted back to be whole. */
typedef struct cnn_depthwise_strip {
    int64_t begin, end;
} cnn_depthwise_strip;

cnn_depthwise_strip cnn_depthwise_strip_at(const cnn_depthwise_plan *plan, int64_t strip);

/* A thread's scratch memory. */
typedef struct cnn_depthwise_scratch {
    cnn_depthwise_row *row;  /* of a band */
    float *made, *back_made; /* rows of x and of y, as prologues make them */
} cnn_depthwise_scratch;

cnn_depthwise_scratch cnn_depthwise_scratch_of(const cnn_depthwise_job *job, int32_t thread);

/* ---- forward, backward data (conv_depthwise_rows.c) -------------------------------------------------------------- */

/* Packs the weights into job->to_weights. */
void cnn_depthwise_pack(cnn_depthwise_job *job);
/* The rows of dst `first` .. `first` + rows - 1 of an image, and what each of them sees. */
void cnn_depthwise_list_rows(const cnn_depthwise_job *job, int64_t image, int64_t first, int64_t rows, cnn_depthwise_row *row);
/* What all bands of those channels have in common. */
cnn_depthwise_band cnn_depthwise_band_of(const cnn_depthwise_job *job, cnn_depthwise_strip strip);
/* Computes a band's rows, but for activations that are no clamp. */
void cnn_depthwise_run_band(const cnn_depthwise_job *job, const cnn_depthwise_band *band);

/* ---- backward weights (conv_depthwise_sums.c) -------------------------------------------------------------------- */

void cnn_depthwise_run_sums(const cnn_conv_call *call);
/* Takes memory for the sums, and finds the rows of the kernel. */
void cnn_depthwise_begin_sums(cnn_depthwise_job *job, char **cursor);
/* The sums of a share, of those channels, = 0. */
void cnn_depthwise_clear_sums(const cnn_depthwise_job *job, int64_t share, cnn_depthwise_strip strip);
/* Some rows of y, `begin` .. `end` - 1 of an image, with what they see of x. */
cnn_depthwise_image cnn_depthwise_part_of(const cnn_depthwise_job *job, int64_t image, int64_t begin, int64_t end,
                                          cnn_depthwise_strip strip);
/* Makes the rows of x that the part sees, and lets it see those, by taps of its own; false: it sees none. */
bool cnn_depthwise_make_part(const cnn_depthwise_job *job, float *made, cnn_depthwise_tap *taps, cnn_depthwise_image *part);
/* The sums of a share += what the part sees. */
void cnn_depthwise_sum_part(const cnn_depthwise_job *job, int64_t share, const cnn_depthwise_image *part);
/* diff_weights += the sums of all shares, in order. */
void cnn_depthwise_add_shares(const cnn_depthwise_job *job, float *diff_weights);

/* ---- both gradients from one reading (conv_depthwise_joint.c) ---------------------------------------------------- */

/* Rows of x that lie beside `some` rows of y, and rows of y that those and these see, at most. */
int64_t cnn_depthwise_joint_rows(const cnn_conv *conv, int64_t some);
int64_t cnn_depthwise_joint_back_rows(const cnn_conv *conv, int64_t some);
void cnn_depthwise_run_joint(const cnn_conv_call *call);

/* ------------------------------------------------------------------------------------------------------------------ */

/* Threads that pay: cnn_conv_work knows the speed of products of matrices. With a stride, moving the images takes longer. */
static inline int32_t cnn_depthwise_threads(const cnn_conv_call *call)
{
    const cnn_conv *conv = call->conv;
    const double products = 1.3 * cnn_conv_work(conv, call->kernels);
    const double floats = (double)conv->n * (double)(conv->ih * conv->iw + conv->oh * conv->ow) * (double)conv->ic;
    const double moves = 0.08 * floats; /* at 50 GB/s, as between caches */
    return cnn_useful_threads(call->threads, products > moves ? products : moves);
}

#endif
