/* The op table: what the engine knows of an operation. Nothing else in the engine switches over kinds of operations. */
#ifndef CNN_OPS_OP_H
#define CNN_OPS_OP_H

#include "base/shape.h"
#include "cpu/kernels.h"
#include "ops/fields.h"
#include "thread/thread.h"

/* What is fused behind an operation: dst = activation(result + addend), both optional. The addend has the shape of dst
 * and is the source number row->max_sources. Put there by the planner, where the row says that it can (`fuses`). */
typedef struct cnn_epilogue {
    bool adds, activates;
    struct cnn_activation_attributes activation;
} cnn_epilogue;

/* What is fused before an operation: it reads its source 0, an image with its channels last, as
 *
 *     activation(scale[c] (src - mean[c]) + shift[c])
 *
 * Put there by the planner, where the row says that it can (`takes_prologue`), and made by the row of the step before it
 * (`prologue`), whose result is then nowhere. */
typedef struct cnn_prologue {
    int64_t channels, fold;            /* the numbers of all channels come `fold` times, to fill vectors */
    const float *mean, *scale, *shift;
    cnn_norm_activation activation;
    float slope;
} cnn_prologue;

/* The same on the way back: the operation reads as the gradient of its result, with its pixels in the same order,
 *
 *     scale[c] g + b[c] (src - mean[c]) + c[c],   g = activation'(scale[c] (src - mean[c]) + shift[c]) diff_dst
 *
 * that is, what the normalization behind it makes of the gradient of its own result. */
typedef struct cnn_back_prologue {
    cnn_prologue forward;
    const float *b, *c;
    const float *src, *diff_dst; /* of the normalization: all pixels */
} cnn_back_prologue;

/* Rows of channels, of the n h w of an image, that are there now: these channels of them. `done` rows of the piece, of the
 * same channels, were seen before. */
typedef struct cnn_sight {
    int64_t piece, done;
    int64_t first, rows;
    int64_t channel, channels;
} cnn_sight;

/* Somebody who takes what he needs of a result while it is made and lies in the caches, piece by piece. The pieces hang on
 * the shape alone, and come at any time and from any thread; a piece's rows come in order. */
typedef struct cnn_watch {
    void (*see)(const struct cnn_watch *watch, const cnn_sight *sight, int32_t thread);
    void *state;
} cnn_watch;

/* One operation in a graph: everything known of it before it runs. */
typedef struct cnn_node {
    const struct cnn_op_row *row;
    cnn_attributes attributes;
    const cnn_kernels *kernels;
    cnn_dtype dtype; /* the working type: CNN_FLOAT32 or CNN_FLOAT64 */
    int32_t num_sources;
    bool present[CNN_MAX_SOURCES];       /* false where the source is CNN_NONE */
    cnn_shape src_shape[CNN_MAX_SOURCES]; /* of the sources present */
    cnn_dtype src_dtype[CNN_MAX_SOURCES];
    bool row_major[CNN_MAX_SOURCES]; /* a parameter or state: row-major even at rank 4 */
    bool wanted[CNN_MAX_SOURCES];    /* backward: the gradient of this source is needed (set when planned) */
    cnn_shape dst_shape;
    uint32_t keeps_src; /* as in the row, unless infer knows better */
    bool keeps_dst;
    bool direct; /* no Winograd convolution (set when planned) */
    bool packed; /* forward gets the row's packed parameters: no workspace is needed for them (set when planned) */
    cnn_epilogue epilogue; /* (set when planned) */
    bool deferred; /* dst is not made: the one step that reads it makes it of this one's source 0 (set when planned) */
    bool prologue; /* source 0 is deferred (set when planned) */
    bool back_deferred; /* diff_src[0] is not made: the one step that reads it makes it of diff_dst (set when planned) */
    bool back_prologue; /* diff_dst is deferred (set when planned) */
    int64_t pieces; /* in which forward watches source 0 being made, or 0 (set when planned) */
    int64_t back_pieces; /* in which backward watches diff_dst being made, or 0 (set when planned) */
    uint64_t id; /* the operation's number in its graph: its stream of random numbers */
} cnn_node;

/* One run of an operation. Absent sources are NULL. */
typedef struct cnn_call {
    const cnn_node *node;
    void *const *src;          /* sources; states may be written; the epilogue's addend is src[row->max_sources] */
    cnn_prologue prologue;     /* through which src[0] is to be read, that of the deferred step; backward, too */
    cnn_back_prologue back_prologue; /* backward: through which diff_dst is to be read, which is NULL then */
    const void *packed;        /* forward: what the row's `pack` made of constant parameters; NULL: they are in src */
    void *dst;                 /* forward: gets `=` the result; backward: holds it, if the row keeps it */
    const void *diff_dst;      /* backward: the gradient of dst */
    void *const *diff_src;     /* backward: gets `=` or, where the row accumulates, `+=`; NULL where not wanted */
    uint32_t add;              /* backward: bit i: diff_src[i] gets `+=`; only of what the row can add */
    void *saved;               /* the row's `saved` bytes: written by forward, read by backward */
    void *workspace;           /* the row's `workspace` bytes, uninitialised */
    const cnn_watch *watch;    /* who is shown dst or, backward, diff_src[0], in the row's pieces; or NULL */
    bool again;                /* forward runs once more: `saved` holds what it left, states stay as they are */
    int32_t threads;           /* to pass to cnn_parallel, through cnn_useful_threads where work may be small */
    uint64_t random_seed, random_call;
} cnn_call;

typedef struct cnn_op_row {
    const char *name; /* as error messages say it, and files: it stays */
    const cnn_field *fields; /* its attributes, NULL: it takes none */
    int32_t min_sources, max_sources;
    uint32_t optional;    /* bit i: source i may be CNN_NONE; sources past the last given count as CNN_NONE */
    uint32_t keeps_src;   /* bit i: backward reads source i */
    bool keeps_dst;       /* backward reads dst; infer may change both in the node */
    bool activates_again; /* backward behind an activation spares diff_dst, and without an addition does not need dst */
    uint32_t accumulates; /* bit i: backward adds to diff_src[i] (`+=`), else it writes (`=`) */
    uint32_t in_place;    /* bit i: dst may lie where source i does, and diff_src[i] where diff_dst does */
    uint32_t writes;      /* bit i: forward writes to source i, a state, unless the node is affine (as_affine) */
    uint32_t parameters;  /* bit i: source i is a parameter by nature: trained, row-major at any rank */
    uint32_t integers;    /* bit i: source i is of CNN_INT64 */
    uint32_t packs;       /* bit i: forward does not read source i if it gets `packed` */

    /* Checks attributes and sources, sets dst_shape (and may complete attributes). Messages name the argument, what
     * came and what is wanted. Runs once, when the node is added. */
    cnn_status (*infer)(cnn_node *node);
    /* Bytes that forward leaves for backward; NULL: none. Depends on the node alone. */
    size_t (*saved)(const cnn_node *node);
    /* Multiply-adds of forward; NULL: it only passes over its sources and dst. */
    double (*work)(const cnn_node *node);
    /* Bytes of scratch memory for a pass on `threads` threads; NULL: none. */
    size_t (*workspace)(const cnn_node *node, bool backward, int32_t threads);

    /* float32. The engine does not call them when dst has no elements. diff_src is NULL-filled when nothing is wanted. */
    cnn_status (*forward)(const cnn_call *call);
    cnn_status (*backward)(const cnn_call *call); /* NULL: gives no gradient */

    /* Whether forward (and backward, if asked) of the node can take this epilogue; NULL: it never can. Backward of an
     * activating node is called with dst and with a diff_dst that it may overwrite (but see activates_again), and with
     * diff_src of the addend (`=`). */
    bool (*fuses)(const cnn_node *node, const cnn_epilogue *epilogue, bool backward);
    /* Bit i: backward of the node can add to diff_src[i], where cnn_call.add says so. NULL: to none. */
    uint32_t (*can_add)(const cnn_node *node);
    /* What the node would be as an epilogue of the operation before it; nothing at all is an operation that leaves its
     * source as it is. An addition's sources are both of the shape of dst. false, NULL: it is none. */
    bool (*as_epilogue)(const cnn_node *node, cnn_epilogue *epilogue);
    /* For constant parameters and states in src: dst[:, c] = scale[c] src[:, c] + shift[c]. false, NULL: it is not. */
    bool (*as_affine)(const cnn_node *node, void *const *src, double *scale, double *shift);
    /* scaled = weights (source 1) such that dst[:, c] is scaled by scale[c]; source 2 is a bias per channel. With scaled
     * NULL it only tells whether it can. false, NULL: it cannot be done. */
    bool (*rescale)(const cnn_node *node, const void *weights, const double *scale, void *scaled);
    /* For parameters that never change: the bytes that `pack` fills from the sources, and that forward then reads
     * instead of them. NULL, or 0 bytes: forward reads the sources themselves. */
    size_t (*packed)(const cnn_node *node);
    void (*pack)(const cnn_node *node, void *const *src, void *packed);
    /* What is packed is one source's numbers, bit for bit, in another order: they can be read back (graph/unpack.c).
     * false, NULL: a plan keeps the source beside it. */
    bool (*reorders)(const cnn_node *node);

    /* Whether any rows of dst, images (n, c, h, w), can be computed by themselves, from some rows of source 0 and the other
     * sources (and `packed`) as they are: to the bit as in the whole. Rows first .. first + rows - 1 of one image see the
     * rows *src_first .. + *src_rows - 1; `part`, if not NULL, gets the node that computes them. Its workspace depends on
     * `rows` alone. NULL: it cannot be done. */
    bool (*band)(const cnn_node *node, int64_t first, int64_t rows, cnn_node *part, int64_t *src_first, int64_t *src_rows);

    /* In how many pieces forward can show dst to a watch. 0, NULL: it cannot. */
    int64_t (*pieces)(const cnn_node *node);
    /* Whether forward can watch its source 0 being made; NULL: never. If it does (node->pieces), `watch` is called before that
     * is made, with what forward will be called with. */
    bool (*watches)(const cnn_node *node);
    void (*watch)(const cnn_call *call, cnn_watch *watch);
    /* The same of backward: in how many pieces it can show diff_src[0] while what it reads as source 0 is near, too; and whether
     * it can watch diff_dst being made (node->back_pieces) by who reads its own source 0. */
    int64_t (*back_pieces)(const cnn_node *node);
    bool (*back_watches)(const cnn_node *node);
    void (*back_watch)(const cnn_call *call, cnn_watch *watch);

    /* Whether `forward` can leave its result to who reads it: of source 0 it then takes no more than it needs for that, into
     * `saved`. Backward must not read dst. NULL: never. */
    bool (*defers)(const cnn_node *node);
    /* *prologue = what makes dst of source 0, from what forward saved. Of a node that is deferred. */
    void (*prologue)(const cnn_call *call, cnn_prologue *prologue);
    /* Whether forward and backward can read source 0 through a prologue; NULL: never. */
    bool (*takes_prologue)(const cnn_node *node);
    /* The same of backward and diff_src[0], which is NULL where it is left to its reader. */
    bool (*back_defers)(const cnn_node *node);
    void (*back_prologue)(const cnn_call *call, cnn_back_prologue *prologue);
    bool (*takes_back_prologue)(const cnn_node *node);

    /* The scalar reference: float64 always, float32 when the plan asks for it. Same `saved` layout and workspace. Nodes
     * for the reference have no epilogue and nothing packed. */
    cnn_status (*reference_forward)(const cnn_call *call);
    cnn_status (*reference_backward)(const cnn_call *call);
} cnn_op_row;

/* Indexed by cnn_op. */
extern const cnn_op_row *const cnn_op_table[CNN_OP_COUNT];

/* The bit of source i, for the masks of a row. */
#define SRC(i) (UINT32_C(1) << (i))

/* The rows; each family's file in ops/ defines its own. */
extern const cnn_op_row cnn_op_conv2d, cnn_op_conv_transpose2d, cnn_op_linear;
extern const cnn_op_row cnn_op_batch_norm, cnn_op_instance_norm, cnn_op_group_norm, cnn_op_layer_norm;
extern const cnn_op_row cnn_op_activation, cnn_op_prelu, cnn_op_softmax, cnn_op_log_softmax;
extern const cnn_op_row cnn_op_max_pool2d, cnn_op_avg_pool2d, cnn_op_adaptive_avg_pool2d;
extern const cnn_op_row cnn_op_upsample_nearest, cnn_op_upsample_bilinear;
extern const cnn_op_row cnn_op_dropout, cnn_op_reshape, cnn_op_add, cnn_op_multiply, cnn_op_affine;
extern const cnn_op_row cnn_op_concat, cnn_op_slice;
extern const cnn_op_row cnn_op_cross_entropy, cnn_op_nll, cnn_op_mse, cnn_op_l1, cnn_op_bce_with_logits;

/* Fails unless source i has `rank` dimensions; the message calls it `name`. */
cnn_status cnn_check_rank(const cnn_node *node, int32_t i, const char *name, int32_t rank);
/* Fails unless source i, where present, has this shape. */
cnn_status cnn_check_shape(const cnn_node *node, int32_t i, const char *name, const cnn_shape *wanted);
/* Fails unless source i, where present, is one-dimensional with `length` elements. */
cnn_status cnn_check_length(const cnn_node *node, int32_t i, const char *name, int64_t length);

#endif
