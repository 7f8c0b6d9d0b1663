/* Convolution as the files ops/conv_*.c share it.
 *
 * A convolution maps an image x of (ih, iw) pixels and ic channels to an image y of (oh, ow) pixels and oc channels;
 * both lie channels-last. There are three passes:
 *
 *     forward            y  = bias + x * weights         reads the pixels i * stride + k * dilation - padding of x
 *     backward data      x  = bias + y * weights         the transpose of that map
 *     backward weights   weights += x * y
 *
 * and both gradients of a convolution from one reading of x and y, where an algorithm can: "backward".
 *
 * A transposed convolution swaps the roles: its source is y, its destination x; its forward is the pass "backward
 * data" and the other way round. A linear layer is a convolution of 1x1 pixels. */
#ifndef CNN_OPS_CONV_H
#define CNN_OPS_CONV_H

#include "ops/op.h"

typedef struct cnn_conv {
    int64_t n, groups;
    int64_t ic, ih, iw; /* x; channels of all groups */
    int64_t oc, oh, ow; /* y */
    int64_t kh, kw;
    int64_t stride[2], dilation[2], padding[2]; /* rows, columns; top, left */
    int64_t weights_stride[4];                  /* in elements, of (oc, ic / groups, kh, kw) */
    bool direct;                                /* Winograd is not wanted */
    bool packed;                                /* the weights come packed: no workspace is needed for them */
    bool prologue;                              /* forward and backward weights read x through one */
    bool back_prologue;                         /* backward reads y through one */
} cnn_conv;

typedef enum cnn_conv_pass {
    CNN_CONV_FORWARD,
    CNN_CONV_BACKWARD_DATA,
    CNN_CONV_BACKWARD_WEIGHTS,
    CNN_CONV_BACKWARD
} cnn_conv_pass;

/* One pass of a convolution. */
typedef struct cnn_conv_call {
    cnn_conv_pass pass;
    const cnn_conv *conv;
    const cnn_kernels *kernels;
    int32_t threads;
    char *workspace;
    const float *x, *y, *weights, *bias; /* those that the pass reads; bias may be NULL */
    const cnn_prologue *prologue;        /* x is to be read through it, or NULL */
    const cnn_back_prologue *back_prologue; /* so is y, by backward; y is its diff_dst then */
    const void *packed;                  /* the weights as the algorithm's `pack` left them, or NULL: pack them now */
    /* The epilogue: out = activation(sums + bias + addend); NULL where there is none, and in backward
     * weights. The addend may be `out` itself. */
    const float *addend;
    const struct cnn_activation_attributes *activation;
    const cnn_watch *watch; /* who is shown `out` in the algorithm's pieces, or NULL */
    float *out; /* y (`=`) of forward, x (`=`) of backward and backward data, diff_weights (`+=`) of backward weights */
    float *diff_weights; /* `+=` of backward */
} cnn_conv_call;

/* One way to compute a pass, or several. */
typedef struct cnn_conv_algorithm {
    const char *name;
    bool (*suits)(const cnn_conv *conv, cnn_conv_pass pass);
    size_t (*workspace)(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels, int32_t threads);
    void (*run)(const cnn_conv_call *call);
    /* Weights packed once, for forward and backward data: their bytes, and the packing of call->weights. NULL: the
     * algorithm reads them as they are. */
    size_t (*packed)(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels);
    void (*pack)(const cnn_conv_call *call, void *packed);
    /* Forward alone: whether some rows of y are computed as in the whole, from the same packed weights. NULL: never. */
    bool (*bands)(const cnn_conv *conv);
    /* Forward, backward and backward data: in how many pieces `out` can be shown to a watch, or 0; of backward, with the pixels of
     * x that lie there. NULL: 0. */
    int64_t (*pieces)(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels);
    /* Forward and backward weights: whether x can be read through a prologue. NULL: never. */
    bool (*prologues)(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels);
    bool joins; /* computes backward, too: the pass may be asked for */
    bool reorders; /* packed weights are the weights, those that are read, bit for bit in another order */
} cnn_conv_algorithm;

/* One filter a channel, all passes: 3 or 5 columns wide (conv_depthwise.h), any other (conv_depthwise.c). */
extern const cnn_conv_algorithm cnn_conv_depthwise_rows, cnn_conv_depthwise;
/* 3x3 of stride 1: all passes (conv_winograd.c), backward weights of few channels (conv_winograd_shares.c) */
extern const cnn_conv_algorithm cnn_conv_winograd, cnn_conv_winograd_shares;
extern const cnn_conv_algorithm cnn_conv_direct;    /* any forward or backward data (conv_direct.c) */
extern const cnn_conv_algorithm cnn_conv_outer;     /* any backward weights (conv_outer.c) */

/* A 1x1 convolution that moves no pixels, as one long row of them. */
bool cnn_conv_is_flat(const cnn_conv *conv);
void cnn_conv_flatten(cnn_conv *conv);

/* Whether one suits for the pass "backward". (conv.c) */
bool cnn_conv_joins(const cnn_conv *conv);
/* Runs the first algorithm of the list that suits; cnn_conv_workspace tells its bytes. (conv.c) */
size_t cnn_conv_workspace(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels, int32_t threads);
void cnn_conv_run(const cnn_conv_call *call);
size_t cnn_conv_packed(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels);
void cnn_conv_pack(const cnn_conv_call *call, void *packed);
bool cnn_conv_bands(const cnn_conv *conv);
int64_t cnn_conv_pieces(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels);
bool cnn_conv_prologues(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels);
/* True where all weights can be read back from their packed form. */
bool cnn_conv_reorders(const cnn_conv *conv, cnn_conv_pass pass);

/* Roughly the nanoseconds that one core takes for a pass; finding a pixel takes five, however few its channels are. */
static inline double cnn_conv_work(const cnn_conv *conv, const cnn_kernels *kernels)
{
    const double pixels = (double)conv->n * (double)conv->oh * (double)conv->ow;
    const double products = (double)conv->oc * (double)(conv->ic / conv->groups) * (double)(conv->kh * conv->kw);
    return pixels * (products / (3.0 * kernels->width) + 5.0);
}

/* diff_bias[c] += the sum of diff_dst over rows, (rows, channels) row-major. (conv_bias.c) */
size_t cnn_conv_bias_workspace(int64_t rows, int64_t channels);
void cnn_conv_bias_backward(const cnn_kernels *kernels, int32_t threads, int64_t rows, int64_t channels,
                            const float *diff_dst, void *workspace, float *diff_bias);

#endif
