/* cnn_core: convolutional networks on the CPU, forward and backward.
 *
 * This is the one public header. The life of a network is
 *
 *     graph (what to compute) -> plan (how, and where in memory) -> context (one run's memory) -> forward, backward
 *
 * Graphs and plans are plain data; a plan is immutable and may be shared by threads; a context belongs to one thread at
 * a time. Every function that can fail returns a cnn_status and leaves a message for cnn_last_error(). Nothing prints,
 * exits, or keeps state that two users of the library could fight over. Freeing NULL is fine.
 *
 * Tensors. A shape is logical: images are (n, c, h, w). Memory is dense: rank-4 tensors lie channels-last (n, h, w, c),
 * every other rank lies row-major. Weights are parameters and always lie row-major in their logical order, so a
 * convolution's weights are (oc, ic/groups, kh, kw).
 */
#ifndef CNN_CORE_H
#define CNN_CORE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(CNN_SHARED)
#ifdef CNN_BUILDING
#define CNN_API __declspec(dllexport)
#else
#define CNN_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define CNN_API __attribute__((visibility("default")))
#else
#define CNN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define CNN_ABI_VERSION 1
#define CNN_MAX_RANK 6
#define CNN_NAME_BYTES 96  /* of a value's name, the terminating zero included */
#define CNN_MAX_SOURCES 32 /* inputs of one operation; only CNN_OP_CONCAT takes more than seven */

/* ---- status ------------------------------------------------------------------------------------------------------ */

typedef enum cnn_status {
    CNN_OK = 0,
    CNN_INVALID_VALUE, /* a value or a shape that the operation does not take */
    CNN_INVALID_TYPE,  /* a data type that the operation does not take */
    CNN_OUT_OF_MEMORY,
    CNN_INVALID_STATE, /* a call that comes too early or too late, as backward before forward */
    CNN_UNSUPPORTED,   /* what this build or this machine cannot do */
    CNN_BAD_FILE,      /* a model file that is damaged, cut short or no model file at all */
    CNN_IO_ERROR       /* a file that cannot be opened, read or written */
} cnn_status;

/* The message of the last failure on the calling thread; never NULL, valid until the next failure on this thread. */
CNN_API const char *cnn_last_error(void);
CNN_API const char *cnn_version(void);
CNN_API int32_t cnn_abi_version(void);

/* ---- machine ----------------------------------------------------------------------------------------------------- */

/* Chooses the kernels for this CPU, obeying CNN_FORCE_ISA=scalar|sse2|avx2|avx512|neon. Called by whatever needs it; calling it first lets
 * a program see the error: CNN_UNSUPPORTED when the forced ISA is unknown, not in this build or not in this CPU. */
CNN_API cnn_status cnn_initialize(void);
CNN_API const char *cnn_isa(void);             /* the ISA whose kernels run, as "avx2" */
CNN_API const char *cnn_available_isas(void);  /* those of this build that this CPU can run, as "scalar avx2" */

/* Threads that a parallel region uses. The default is OMP_NUM_THREADS, else the CPUs that affinity and the cgroup quota
 * leave, at most the physical cores. Results do not depend on it, to the bit. */
CNN_API int32_t cnn_get_num_threads(void);
CNN_API cnn_status cnn_set_num_threads(int32_t num_threads);
CNN_API const char *cnn_thread_backend(void); /* "openmp", "pthreads", "win32" or "serial" */

/* ---- memory ------------------------------------------------------------------------------------------------------ */

/* Where memory comes from. `allocate` returns NULL when there is none, else memory at a multiple of alignment, a power of
 * two; `release` gets what allocate returned, never NULL. Both may be called from any thread that uses what was made with
 * them; `user` must outlive it. */
typedef struct cnn_allocator {
    void *(*allocate)(void *user, size_t bytes, size_t alignment);
    void (*release)(void *user, void *memory);
    void *user;
} cnn_allocator;

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

typedef enum cnn_dtype { CNN_FLOAT32 = 0, CNN_FLOAT64 = 1, CNN_INT64 = 2 } cnn_dtype;

typedef struct cnn_shape {
    int32_t rank;
    int64_t dim[CNN_MAX_RANK];
} cnn_shape;

/* ---- operations -------------------------------------------------------------------------------------------------- */

/* Sources stand in brackets; those in parentheses may be CNN_NONE. Each operation has one destination. */
typedef enum cnn_op {
    CNN_OP_CONV2D = 0,       /* [src, weights (oc, ic/groups, kh, kw), (bias (oc))]                             conv */
    CNN_OP_CONV_TRANSPOSE2D, /* [src, weights (ic, oc/groups, kh, kw), (bias (oc))]                             conv */
    CNN_OP_LINEAR,           /* [src (..., in), weights (out, in), (bias (out))]                                   - */
    CNN_OP_BATCH_NORM,       /* [src, (weights (c)), (bias (c)), (running_mean), (running_var), (num_batches)]  norm */
    CNN_OP_INSTANCE_NORM,    /* [src, (weights (c)), (bias (c)), (running_mean), (running_var), (num_batches)]  norm */
    CNN_OP_GROUP_NORM,       /* [src, (weights (c)), (bias (c))]                                                norm */
    CNN_OP_LAYER_NORM,       /* [src, (weights (normalized)), (bias (normalized))]                              norm */
    CNN_OP_ACTIVATION,       /* [src]                                                                     activation */
    CNN_OP_PRELU,            /* [src, slope (1) or (c)]                                                            - */
    CNN_OP_SOFTMAX,          /* [src]                                                                           axis */
    CNN_OP_LOG_SOFTMAX,      /* [src]                                                                           axis */
    CNN_OP_MAX_POOL2D,       /* [src]                                                                           pool */
    CNN_OP_AVG_POOL2D,       /* [src]                                                                           pool */
    CNN_OP_ADAPTIVE_AVG_POOL2D, /* [src]                                                                      resize */
    CNN_OP_UPSAMPLE_NEAREST,    /* [src]                                                                      resize */
    CNN_OP_UPSAMPLE_BILINEAR,   /* [src]                                                                      resize */
    CNN_OP_DROPOUT,             /* [src]                                                                     dropout */
    CNN_OP_RESHAPE,             /* [src]: same elements in logical row-major order                           reshape */
    CNN_OP_ADD,                 /* [src, src]: a + alpha b, NumPy broadcasting                                affine */
    CNN_OP_MULTIPLY,            /* [src, src]: a b, NumPy broadcasting                                             - */
    CNN_OP_AFFINE,              /* [src]: alpha a + beta                                                      affine */
    CNN_OP_CONCAT,              /* [src, src, ...]                                                              axis */
    CNN_OP_SLICE,               /* [src]                                                                       slice */
    CNN_OP_CROSS_ENTROPY,       /* [logits (n, c, ...), targets int64 (n, ...), (class weights (c))]            loss */
    CNN_OP_NLL,                 /* [log-probabilities (n, c, ...), targets int64 (n, ...), (class weights (c))] loss */
    CNN_OP_MSE,                 /* [src, targets of the same shape]                                             loss */
    CNN_OP_L1,                  /* [src, targets of the same shape]                                             loss */
    CNN_OP_BCE_WITH_LOGITS,     /* [logits, targets, (weights), (positive weights)], weights broadcast          loss */
    CNN_OP_COUNT
} cnn_op;

typedef enum cnn_activation {
    CNN_SIGMOID = 0,
    CNN_TANH,
    CNN_RELU,
    CNN_RELU6,
    CNN_LEAKY_RELU, /* alpha: slope below zero */
    CNN_SOFTPLUS,   /* alpha: beta; beta: threshold on beta*x above which it is linear */
    CNN_MISH,
    CNN_SILU,
    CNN_GELU,      /* x Phi(x) by erf */
    CNN_GELU_TANH, /* the tanh approximation */
    CNN_ELU,       /* alpha */
    CNN_SELU,
    CNN_HARDSWISH,
    CNN_HARDSIGMOID,
    CNN_ACTIVATION_COUNT
} cnn_activation;

typedef enum cnn_reduction { CNN_REDUCE_NONE = 0, CNN_REDUCE_MEAN = 1, CNN_REDUCE_SUM = 2 } cnn_reduction;

/* The attributes of an operation: the member named in the list above; operations marked "-" take none. */
typedef union cnn_attributes {
    struct cnn_conv_attributes {
        int64_t stride[2], dilation[2]; /* rows, columns */
        int64_t padding[4];             /* top, left, bottom, right; not negative */
        int64_t output_padding[2];      /* transposed convolution only */
        int64_t groups;
    } conv;
    struct cnn_norm_attributes {
        double eps;
        double momentum;      /* the weight of the new value; negative: cumulative average by num_batches */
        int64_t groups;       /* group normalization */
        int32_t axes;         /* layer normalization: how many trailing axes are normalized */
        int32_t training;     /* use and record the batch's statistics (batch, instance) */
    } norm;
    struct cnn_activation_attributes {
        cnn_activation kind;
        double alpha, beta;
    } activation;
    struct cnn_axis_attributes {
        int32_t axis;
    } axis;
    struct cnn_pool_attributes {
        int64_t kernel[2], stride[2], dilation[2], padding[2]; /* average pooling: dilation 1 */
        int64_t divisor;                                      /* average pooling: 0, or the divisor to use */
        int32_t ceil_mode;
        int32_t count_include_pad;
    } pool;
    struct cnn_resize_attributes {
        int64_t size[2];       /* output rows, columns */
        double scale[2];       /* upsampling: src per dst step as given by the user, or 0 for size ratio */
        int32_t align_corners; /* bilinear */
    } resize;
    struct cnn_dropout_attributes {
        double p;
        int32_t training;
        int32_t per_channel;   /* drop whole (n, c) planes */
    } dropout;
    struct cnn_reshape_attributes {
        cnn_shape shape;
    } reshape;
    struct cnn_affine_attributes {
        double alpha, beta;
    } affine;
    struct cnn_slice_attributes {
        int64_t start[CNN_MAX_RANK], step[CNN_MAX_RANK], size[CNN_MAX_RANK]; /* per axis; step not 0, may be negative */
    } slice;
    struct cnn_loss_attributes {
        cnn_reduction reduction;
        double label_smoothing;
        int64_t ignore_index;
    } loss;
} cnn_attributes;

/* ---- graph ------------------------------------------------------------------------------------------------------- */

typedef struct cnn_graph cnn_graph;
typedef int32_t cnn_value; /* a tensor of a graph */
#define CNN_NONE (-1)

/* dtype is the working type, CNN_FLOAT32 or CNN_FLOAT64. */
CNN_API cnn_status cnn_graph_create(cnn_dtype dtype, cnn_graph **graph);
/* The same with the caller's memory; NULL: the library's own. */
CNN_API cnn_status cnn_graph_create_with(cnn_dtype dtype, const cnn_allocator *allocator, cnn_graph **graph);
CNN_API void cnn_graph_free(cnn_graph *graph);

/* An input of the network; dtype is the working type, or CNN_INT64 for class targets. */
CNN_API cnn_status cnn_graph_input(cnn_graph *graph, cnn_dtype dtype, const cnn_shape *shape, cnn_value *value);
/* A trainable tensor in caller memory; its gradient accumulates (+=) in caller memory. Row-major whatever its rank. */
CNN_API cnn_status cnn_graph_parameter(cnn_graph *graph, const cnn_shape *shape, cnn_value *value);
/* A tensor in caller memory that operations read and may update, as running statistics. Row-major. */
CNN_API cnn_status cnn_graph_state(cnn_graph *graph, cnn_dtype dtype, const cnn_shape *shape, cnn_value *value);
/* Adds an operation; checks attributes and shapes. sources may hold CNN_NONE where the operation allows it. */
CNN_API cnn_status cnn_graph_apply(cnn_graph *graph, cnn_op op, const cnn_attributes *attributes, int32_t num_sources,
                                   const cnn_value *sources, cnn_value *value);
CNN_API cnn_status cnn_graph_output(cnn_graph *graph, cnn_value value);
/* An output that is only looked at: it takes no gradient from the caller. */
CNN_API cnn_status cnn_graph_watch(cnn_graph *graph, cnn_value value);
/* Asks for the gradient of an input or a parameter. */
CNN_API cnn_status cnn_graph_require_gradient(cnn_graph *graph, cnn_value value);
/* Names a value, for the user's sake: plans know the names of inputs and outputs, and files those of weights. Fewer than
 * CNN_NAME_BYTES bytes of UTF-8. */
CNN_API cnn_status cnn_graph_name(cnn_graph *graph, cnn_value value, const char *name);
/* A text of the user's, UTF-8, that goes with the graph into plans and files: labels of classes, how to prepare images. */
CNN_API cnn_status cnn_graph_describe(cnn_graph *graph, const char *text);
/* Values are numbered from 0. */
CNN_API int32_t cnn_graph_num_values(const cnn_graph *graph);
CNN_API cnn_status cnn_graph_shape(const cnn_graph *graph, cnn_value value, cnn_shape *shape);

/* ---- plan -------------------------------------------------------------------------------------------------------- */

typedef struct cnn_plan cnn_plan;

/* Results that backward reads need not be kept: they can be computed again. All bits stay as they are. */
typedef enum cnn_recompute {
    CNN_RECOMPUTE_CHEAP = 0, /* what only passes over memory, largest first, up to a fiftieth of the work; in small
                              * plans nothing */
    CNN_RECOMPUTE_NONE,      /* nothing */
    CNN_RECOMPUTE_MOST       /* all between a few checkpoints: least memory, for at most one forward pass more */
} cnn_recompute;

typedef struct cnn_plan_options {
    int32_t backward;  /* plan for backward too */
    int32_t repeat;    /* allow several backward calls after one forward: what backward reads is never overwritten */
    int32_t reference; /* run the scalar reference of every operation */
    int32_t direct;    /* no Winograd convolution: slower, with smaller rounding errors */
    int32_t threads;   /* for its runs, or 0: cnn_get_num_threads() at the time of each */
    int32_t recompute; /* a cnn_recompute: of what backward reads */
    int32_t final;     /* frozen plans: will not be saved, so that no weights are kept for it beside their packed form */
    const cnn_allocator *allocator; /* for all memory of the plan and its contexts; NULL: the library's own. Copied */
} cnn_plan_options;

/* Copies what it needs: the graph may be freed. */
CNN_API cnn_status cnn_plan_create(const cnn_graph *graph, const cnn_plan_options *options, cnn_plan **plan);
/* A plan for inference with constant parameters and states: normalizations are folded into the weights before them, and
 * weights are packed once, into the plan. data is indexed by value and holds memory of each parameter and state, laid out
 * as said at the top; it is not needed afterwards. CNN_INVALID_VALUE for `backward`, for a missing parameter, and for
 * operations that would update a state. */
CNN_API cnn_status cnn_plan_freeze(const cnn_graph *graph, const cnn_plan_options *options, const void *const *data,
                                   cnn_plan **plan);
/* A plan of one operation, to run on the caller's memory. shapes[i] is that of source i, of rank -1 where it is absent.
 * Sources are values 0 .. num_sources - 1 and dst is value num_sources: inputs, but for weights, biases and slopes
 * (parameters) and running statistics (states). With options->backward there are gradients of all inputs and parameters. */
CNN_API cnn_status cnn_plan_single(cnn_op op, const cnn_attributes *attributes, cnn_dtype dtype, int32_t num_sources,
                                   const cnn_shape *shapes, const cnn_plan_options *options, cnn_plan **plan);
CNN_API void cnn_plan_free(cnn_plan *plan); /* contexts of the plan must be freed first */

/* Inputs are numbered in the order of cnn_graph_input, outputs in that of cnn_graph_output. */
CNN_API int32_t cnn_plan_num_inputs(const cnn_plan *plan);
CNN_API int32_t cnn_plan_num_outputs(const cnn_plan *plan);
CNN_API cnn_value cnn_plan_input(const cnn_plan *plan, int32_t number); /* CNN_NONE if there is none, as the next two */
CNN_API cnn_value cnn_plan_output(const cnn_plan *plan, int32_t number);
CNN_API cnn_value cnn_plan_find(const cnn_plan *plan, const char *name); /* an input or output */
CNN_API cnn_status cnn_plan_shape(const cnn_plan *plan, cnn_value value, cnn_shape *shape);
CNN_API cnn_status cnn_plan_dtype(const cnn_plan *plan, cnn_value value, cnn_dtype *dtype);
CNN_API const char *cnn_plan_name(const cnn_plan *plan, cnn_value value);  /* "" if it has none */
CNN_API const char *cnn_plan_description(const cnn_plan *plan);            /* "" if it has none */

typedef enum cnn_memory {
    CNN_MEMORY_CONSTANTS = 0, /* weights of a frozen plan, as they are used: packed. One for all contexts */
    CNN_MEMORY_ACTIVATIONS,   /* results of operations, and what forward saves for backward. Of each context, as the rest */
    CNN_MEMORY_GRADIENTS,     /* of activations: what backward needs beyond that, after sharing */
    CNN_MEMORY_WORKSPACE,     /* of the operation that needs most */
    CNN_MEMORY_TABLES         /* of plan and one context: descriptions of operations, offsets, pointers */
} cnn_memory;

/* Bytes that the plan, or a context of it, takes: all kinds together are all that was allocated for a plan and a context that
 * has run. Parameters, inputs and outputs in the caller's memory are not counted. */
CNN_API size_t cnn_plan_bytes(const cnn_plan *plan, cnn_memory kind);

/* ---- model files ------------------------------------------------------------------------------------------------- */

/* A frozen plan in a file: graph and weights, for any machine. It is a safetensors file, so that its weights can be read
 * elsewhere; docs/model-file.md has the layout. The file appears in one go: whatever interrupts the writing, there is the
 * old one or the new one. Paths are in the encoding that fopen takes, on Windows UTF-8. CNN_INVALID_STATE for a plan that is
 * not frozen, or is final. */
CNN_API cnn_status cnn_plan_save(const cnn_plan *plan, const char *path);
/* The same into memory: *bytes is its size, and then what was written. With memory NULL only *bytes gets `=` what is
 * needed; CNN_INVALID_VALUE for less. */
CNN_API cnn_status cnn_plan_save_memory(const cnn_plan *plan, void *memory, size_t *bytes);
/* A frozen plan, for this machine and these options: outputs are, to the bit, those of the plan that was saved if both
 * run the same ISA with the same options. The file may come from anywhere: CNN_BAD_FILE for all that is not right. */
CNN_API cnn_status cnn_plan_load(const char *path, const cnn_plan_options *options, cnn_plan **plan);
CNN_API cnn_status cnn_plan_load_memory(const void *bytes, size_t size, const cnn_plan_options *options,
                                        cnn_plan **plan);

/* ---- context ----------------------------------------------------------------------------------------------------- */

typedef struct cnn_context cnn_context;

CNN_API cnn_status cnn_context_create(const cnn_plan *plan, cnn_context **context);
/* Bytes that cnn_context_create_in takes, for the plan's threads, or cnn_get_num_threads() as it is now. */
CNN_API size_t cnn_plan_context_bytes(const cnn_plan *plan);
/* A context in the caller's memory, of any alignment, which must stay until its last use: it never allocates, and needs no
 * cnn_context_free. Fewer bytes mean fewer threads; CNN_INVALID_VALUE if they do not suffice for one. */
CNN_API cnn_status cnn_context_create_in(const cnn_plan *plan, void *memory, size_t bytes, cnn_context **context);
CNN_API void cnn_context_free(cnn_context *context);
CNN_API size_t cnn_context_bytes(const cnn_context *context);

/* Names the caller's memory for a value. The memory is dense, laid out as said at the top, aligned to its element type,
 * and must stay until the last run that uses it.
 *   input      data is read by forward and, if backward needs it, by backward; diff, if not NULL, gets `=` its gradient
 *   parameter  data is read; diff gets `+=` its gradient
 *   state      data is read and updated; diff is NULL
 *   output     data gets `=` the value; diff is read by backward: the gradient of the loss by this output */
CNN_API cnn_status cnn_context_bind(cnn_context *context, cnn_value value, void *data, void *diff);

/* Random numbers of a run (dropout) are a pure function of (seed, call, operation, element): Philox 4x32-10. */
CNN_API cnn_status cnn_context_random(cnn_context *context, uint64_t seed, uint64_t call);

/* A program's own way to run work side by side, in place of the library's threads. A run gives its work in parts; the
 * executor calls part(arg, p) for p = 0 .. participants - 1, each at most once and from whatever threads it likes, and
 * returns when all that it called have returned. The parts share the work among themselves: it may call fewer, or one after
 * another, and what is left the calling thread does. Results are the same, to the bit. */
typedef void (*cnn_executor_fn)(void *state, int32_t participants, void (*part)(void *arg, int32_t participant), void *arg);

/* The executor of this context's runs, and its state, which must stay until the last of them; NULL: the library's threads.
 * `participants` is at most the plan's threads, or cnn_get_num_threads(), and the work of a small operation is not shared. */
CNN_API cnn_status cnn_context_set_executor(cnn_context *context, cnn_executor_fn executor, void *state);

CNN_API cnn_status cnn_context_forward(cnn_context *context);
/* CNN_INVALID_STATE before the first forward, or the second time in a plan without `repeat`. */
CNN_API cnn_status cnn_context_backward(cnn_context *context);

/* ---- parameters: update, regularization, initial values ------------------------------------------------------------ */

/* A run of trainable numbers. Parameter groups, frozen layers and tied weights are rows of a segment table. */
typedef struct cnn_segment {
    void *weights;
    void *diff_weights;
    int64_t length;
    int64_t state_offset; /* where this run's optimizer state begins, in elements of each state buffer */
    double lr_scale;      /* multiplies the learning rate */
    double weight_decay;
} cnn_segment;

typedef enum cnn_update_rule { CNN_SGD = 0, CNN_ADAM, CNN_ADAMW, CNN_RMSPROP } cnn_update_rule;

typedef struct cnn_update {
    cnn_update_rule rule;
    int32_t nesterov, centered, maximize;
    double learning_rate;
    double momentum, dampening;  /* SGD; RMSprop: momentum */
    double beta1, beta2;         /* Adam, AdamW; RMSprop: beta2 is alpha */
    double eps;
    double gradient_scale;       /* multiplies each gradient as it is read: clipping, averaging */
    int64_t step;                /* 1 in the first update */
} cnn_update;

/* One sweep: each weight, gradient and state element is read and written once. Weights and state get `=`. The state
 * buffers, zeroed by the caller before step 1: SGD with momentum: velocity. Adam: first and second moment. RMSprop:
 * square average, momentum buffer, gradient average. Those that a rule does not use may be NULL. */
CNN_API cnn_status cnn_update_apply(const cnn_update *update, cnn_dtype dtype, int64_t num_segments,
                                    const cnn_segment *segments, void *const state[3]);
/* *norm = the 2-norm of all gradients together, or the largest magnitude when `infinity`. */
CNN_API cnn_status cnn_gradient_norm(cnn_dtype dtype, int64_t num_segments, const cnn_segment *segments,
                                     int32_t infinity, double *norm);
CNN_API cnn_status cnn_gradient_scale(cnn_dtype dtype, int64_t num_segments, const cnn_segment *segments, double scale);
/* *penalty = l1 sum|w| + l2 sum w^2; when add_gradient, diff_weights += l1 sign(w) + 2 l2 w, with sign(0) = 0. */
CNN_API cnn_status cnn_penalty(cnn_dtype dtype, int64_t num_segments, const cnn_segment *segments, double l1, double l2,
                               int32_t add_gradient, double *penalty);
/* weights = sign(w) max(|w| - threshold * lr_scale, 0): the proximal step of an L1 penalty. */
CNN_API cnn_status cnn_soft_threshold(cnn_dtype dtype, int64_t num_segments, const cnn_segment *segments,
                                      double threshold);

/* average = decay average + (1 - decay) weights, element by element; state_offset says where in `average` a segment lies. */
CNN_API cnn_status cnn_average_apply(cnn_dtype dtype, int64_t num_segments, const cnn_segment *segments, double decay,
                                     void *average);

/* Parameters that one update applies to. */
typedef struct cnn_update_group {
    cnn_update update;
    int64_t num_segments;
    const cnn_segment *segments;
    void *state[3];
    int64_t num_shrunk;        /* of them: those that take a proximal step afterwards, by threshold */
    const cnn_segment *shrunk;
    double threshold;
} cnn_update_group;

/* A whole training step. Everything that is 0 or NULL is left out. */
typedef struct cnn_training {
    cnn_dtype dtype;
    int32_t accumulate;    /* keep the gradients that are there and add to them, as from the second micro-batch on */
    int32_t postpone;      /* leave parameters and gradients as backward left them: more micro-batches follow */
    int64_t num_trained;   /* all that have gradients: these are cleared, then clipped together */
    const cnn_segment *trained;
    int64_t num_penalized; /* l1 sum|w| + l2 sum w^2 of these joins the loss */
    const cnn_segment *penalized;
    double l1, l2;
    int32_t proximal;      /* l1 has no gradient: groups take proximal steps */
    double clip_norm;      /* bound for the norm of all gradients, penalty included; none if not above 0 */
    int32_t num_groups;
    const cnn_update_group *groups;
    double average_decay;  /* of the moving average of `averaged` */
    int64_t num_averaged;
    const cnn_segment *averaged;
    void *average;
} cnn_training;

/* Clears gradients, runs forward and backward, adds the penalty, clips, updates, averages: one call. The outputs'
 * gradients are bound as for cnn_context_backward. *penalty and *norm (of all gradients, before clipping; 0 unless clipped)
 * may be NULL. On an error nothing is updated. */
CNN_API cnn_status cnn_context_train(cnn_context *context, const cnn_training *training, double *penalty, double *norm);

/* Philox 4x32-10 keyed by seed, numbered by (stream, element): the same numbers at any thread count. dst gets `=`. */
CNN_API cnn_status cnn_fill_uniform(cnn_dtype dtype, int64_t n, void *dst, double low, double high, uint64_t seed,
                                    uint64_t stream);
CNN_API cnn_status cnn_fill_normal(cnn_dtype dtype, int64_t n, void *dst, double mean, double std, uint64_t seed,
                                   uint64_t stream);

/* ---- foreign memory ---------------------------------------------------------------------------------------------- */

/* Memory as the buffer protocol describes it: any strides, negative and zero included, any alignment, any byte order. */
typedef struct cnn_view {
    const void *data; /* the first element in logical order */
    cnn_shape shape;
    int64_t stride[CNN_MAX_RANK]; /* bytes */
    char kind;                    /* 'f' float, 'i' signed, 'u' unsigned integer, 'b' boolean */
    int32_t itemsize;             /* bytes */
    int32_t byteswapped;          /* not in this machine's byte order */
} cnn_view;

/* True where the view already is what cnn_view_import would write: it can be bound as it is. */
CNN_API int32_t cnn_view_is_dense(const cnn_view *view, cnn_dtype dtype, int32_t channels_last);
/* dst = the view's elements, dense: channels-last if asked and rank 4, else row-major. Floats must be of the same width as
 * dtype; any integer goes to CNN_INT64. */
CNN_API cnn_status cnn_view_import(const cnn_view *view, cnn_dtype dtype, int32_t channels_last, void *dst);

#ifdef __cplusplus
}
#endif

#endif
