/* How a normalization by columns is cut into tasks, and what the tasks do. Internal to ops/norm_columns*.c. */
#ifndef CNN_OPS_NORM_PASS_H
#define CNN_OPS_NORM_PASS_H

#include "ops/norm_columns.h"

/* How the work is cut; depends on the shape alone. */
typedef struct cnn_norm_cut {
    int64_t fold, width;        /* `fold` rows are taken as one of `width` columns */
    int64_t stride;             /* between rows of coefficients: their first columns come again behind the last */
    int64_t chunks, chunk_rows; /* of a sample; a multiple of fold */
    int64_t parts, part_samples;
    bool fused;     /* a task does all of part_samples samples; else chunks of them */
    int64_t pieces; /* not 0: in which the one sample is reduced while others make it (cnn_watch) */
} cnn_norm_cut;

/* Some rows of src, and those columns of them; the sums hold `done` rows of the same columns already. */
typedef struct cnn_norm_rows {
    int64_t offset; /* where the first row starts */
    int64_t rows, done;
    int64_t channel, channels;
} cnn_norm_rows;

typedef struct cnn_norm_run cnn_norm_run;

/* What the columns of a sample need, a row of `width` numbers each, `stride` apart: see struct cnn_norm_backward. */
enum { NORM_MEAN, NORM_SCALE, NORM_SHIFT, NORM_B, NORM_C, NORM_COEFFICIENTS };

/* The steps of a pass; those that it does not need are NULL. Offset and rows say where something lies in src, dst and
 * their like. */
typedef struct cnn_norm_pass {
    /* coefficients = those of a sample that are known beforehand. */
    void (*prepare)(const cnn_norm_run *r, int64_t sample, float *coefficients);
    /* sums += some rows, of a chunk or of all that a task has; `=` if they are the first. */
    void (*reduce)(const cnn_norm_run *r, const cnn_norm_rows *at, const float *coefficients, float *scratch,
                   double *sums);
    /* total, of `count` rows so far, += part, of `rows` rows. */
    void (*merge)(const cnn_norm_run *r, int64_t count, double *total, int64_t rows, const double *part);
    /* coefficients = those that a sample's sums lead to. */
    void (*finish)(const cnn_norm_run *r, int64_t sample, const double *sums, double *diff_parameters,
                   float *coefficients);
    /* out = what the coefficients make of `rows` rows of `width` columns. */
    void (*apply)(const cnn_norm_run *r, int64_t offset, int64_t rows, int64_t width, const float *coefficients,
                  bool stream);
} cnn_norm_pass;

/* A pass at work. Fused, sums and coefficients have a slot for each thread; else for each chunk (or piece) and each
 * sample. */
struct cnn_norm_run {
    const cnn_norm_columns *view;
    const cnn_norm_pass *pass;
    const cnn_kernels *kernels;
    cnn_norm_cut cut;
    double eps;
    const float *weights, *bias; /* NULL: ones, zeros */
    double *mean, *var;          /* [samples][groups]: what is saved */
    const float *src;
    float *out;  /* forward: dst; backward: diff_src; NULL where not wanted */
    bool far;    /* sources come from memory */
    bool stream; /* and out would not stay in the caches, and can be written past them */
    /* the epilogue */
    cnn_norm_activation activation;
    float slope;
    const struct cnn_activation_attributes *any; /* forward: an activation that is none of the kernels'; or NULL */
    const float *addend;                         /* forward; or NULL */
    /* backward */
    const float *diff_dst;
    const float *dst;        /* where there was an addend; or NULL */
    float *gated;            /* diff_src of the addend; NULL where not wanted */
    double *diff_parameters; /* [parts][2][channels]: weights, bias */
    /* scratch memory */
    float *scratch;      /* [threads][3][width] */
    double *sums;        /* [slots][2][channels] */
    int64_t *piece_rows; /* [pieces]: how many have been reduced */
    float *coefficients; /* [slots][NORM_COEFFICIENTS][stride] */
};

/* How the pass of a node is cut. */
cnn_norm_cut cnn_norm_cut_of(const cnn_norm_columns *view, int64_t pieces);
/* Starts a run with what both directions have: memory from *workspace, sources and statistics from the call. */
cnn_norm_run cnn_norm_run_of(const cnn_norm_columns *view, const cnn_norm_pass *pass, const cnn_call *call,
                             int64_t pieces, char **workspace);
/* Decides on r->far and r->stream, where `tensors` of src's size are read or written. */
void cnn_norm_set_stream(cnn_norm_run *r, int64_t tensors);
/* Does all steps of r->pass; of a run in pieces, what is left to do after all have been seen. */
void cnn_norm_run_pass(const cnn_norm_run *r, int32_t threads);
/* Starts a run in pieces, with r->coefficients prepared: *watch reduces them. The run is copied to *workspace. */
void cnn_norm_run_watch(const cnn_norm_run *r, char **workspace, cnn_watch *watch);

/* The next block of these rows, of which `done` are done, at most `most` folded ones: how many, each of *copies. */
int64_t cnn_norm_next_block(const cnn_norm_run *r, const cnn_norm_rows *at, int64_t done, int64_t most, int64_t *copies);

#endif
