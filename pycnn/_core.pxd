# The C core's public header, as Cython sees it. The header is the documentation. Other modules cimport pycnn.cnn_core, which
# is the same: cnn_api.h turns their calls into calls through the table of the core that runs.
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t


cdef extern from "cnn_api.h":
    ctypedef struct cnn_api:
        uint32_t struct_size
        int32_t abi
    int import_cnn_core() except -1


cdef extern from "cnn_api.h" nogil:
    int CNN_MAX_RANK
    int CNN_MAX_SOURCES
    int CNN_NAME_BYTES
    int CNN_NONE

    ctypedef enum cnn_status:
        CNN_OK
        CNN_INVALID_VALUE
        CNN_INVALID_TYPE
        CNN_OUT_OF_MEMORY
        CNN_INVALID_STATE
        CNN_UNSUPPORTED
        CNN_BAD_FILE
        CNN_IO_ERROR

    ctypedef enum cnn_dtype:
        CNN_FLOAT32
        CNN_FLOAT64
        CNN_INT64

    ctypedef struct cnn_allocator:
        void *(*allocate)(void *user, size_t bytes, size_t alignment) noexcept
        void (*release)(void *user, void *memory) noexcept
        void *user

    ctypedef struct cnn_shape:
        int32_t rank
        int64_t dim[6]

    ctypedef enum cnn_op:
        CNN_OP_CONV2D
        CNN_OP_CONV_TRANSPOSE2D
        CNN_OP_LINEAR
        CNN_OP_BATCH_NORM
        CNN_OP_INSTANCE_NORM
        CNN_OP_GROUP_NORM
        CNN_OP_LAYER_NORM
        CNN_OP_ACTIVATION
        CNN_OP_PRELU
        CNN_OP_SOFTMAX
        CNN_OP_LOG_SOFTMAX
        CNN_OP_MAX_POOL2D
        CNN_OP_AVG_POOL2D
        CNN_OP_ADAPTIVE_AVG_POOL2D
        CNN_OP_UPSAMPLE_NEAREST
        CNN_OP_UPSAMPLE_BILINEAR
        CNN_OP_DROPOUT
        CNN_OP_RESHAPE
        CNN_OP_ADD
        CNN_OP_MULTIPLY
        CNN_OP_AFFINE
        CNN_OP_CONCAT
        CNN_OP_SLICE
        CNN_OP_CROSS_ENTROPY
        CNN_OP_NLL
        CNN_OP_MSE
        CNN_OP_L1
        CNN_OP_BCE_WITH_LOGITS

    ctypedef enum cnn_activation:
        CNN_SIGMOID
        CNN_TANH
        CNN_RELU
        CNN_RELU6
        CNN_LEAKY_RELU
        CNN_SOFTPLUS
        CNN_MISH
        CNN_SILU
        CNN_GELU
        CNN_GELU_TANH
        CNN_ELU
        CNN_SELU
        CNN_HARDSWISH
        CNN_HARDSIGMOID

    ctypedef enum cnn_reduction:
        CNN_REDUCE_NONE
        CNN_REDUCE_MEAN
        CNN_REDUCE_SUM

    # Members of the union cnn_attributes.
    ctypedef struct cnn_conv_attributes "struct cnn_conv_attributes":
        int64_t stride[2]
        int64_t dilation[2]
        int64_t padding[4]
        int64_t output_padding[2]
        int64_t groups

    ctypedef struct cnn_norm_attributes "struct cnn_norm_attributes":
        double eps
        double momentum
        int64_t groups
        int32_t axes
        int32_t training

    ctypedef struct cnn_activation_attributes "struct cnn_activation_attributes":
        cnn_activation kind
        double alpha
        double beta

    ctypedef struct cnn_axis_attributes "struct cnn_axis_attributes":
        int32_t axis

    ctypedef struct cnn_pool_attributes "struct cnn_pool_attributes":
        int64_t kernel[2]
        int64_t stride[2]
        int64_t dilation[2]
        int64_t padding[2]
        int64_t divisor
        int32_t ceil_mode
        int32_t count_include_pad

    ctypedef struct cnn_resize_attributes "struct cnn_resize_attributes":
        int64_t size[2]
        double scale[2]
        int32_t align_corners

    ctypedef struct cnn_dropout_attributes "struct cnn_dropout_attributes":
        double p
        int32_t training
        int32_t per_channel

    ctypedef struct cnn_reshape_attributes "struct cnn_reshape_attributes":
        cnn_shape shape

    ctypedef struct cnn_affine_attributes "struct cnn_affine_attributes":
        double alpha
        double beta

    ctypedef struct cnn_slice_attributes "struct cnn_slice_attributes":
        int64_t start[6]
        int64_t step[6]
        int64_t size[6]

    ctypedef struct cnn_loss_attributes "struct cnn_loss_attributes":
        cnn_reduction reduction
        double label_smoothing
        int64_t ignore_index

    ctypedef union cnn_attributes:
        cnn_conv_attributes conv
        cnn_norm_attributes norm
        cnn_activation_attributes activation
        cnn_axis_attributes axis
        cnn_pool_attributes pool
        cnn_resize_attributes resize
        cnn_dropout_attributes dropout
        cnn_reshape_attributes reshape
        cnn_affine_attributes affine
        cnn_slice_attributes slice
        cnn_loss_attributes loss

    ctypedef struct cnn_graph:
        pass
    ctypedef struct cnn_plan:
        pass
    ctypedef struct cnn_context:
        pass
    ctypedef int32_t cnn_value

    ctypedef enum cnn_memory:
        CNN_MEMORY_CONSTANTS
        CNN_MEMORY_ACTIVATIONS
        CNN_MEMORY_GRADIENTS
        CNN_MEMORY_WORKSPACE
        CNN_MEMORY_TABLES

    ctypedef enum cnn_recompute:
        CNN_RECOMPUTE_CHEAP
        CNN_RECOMPUTE_NONE
        CNN_RECOMPUTE_MOST

    ctypedef struct cnn_plan_options:
        int32_t backward
        int32_t repeat
        int32_t reference
        int32_t direct
        int32_t threads
        int32_t recompute
        int32_t final
        const cnn_allocator *allocator

    ctypedef struct cnn_segment:
        void *weights
        void *diff_weights
        int64_t length
        int64_t state_offset
        double lr_scale
        double weight_decay

    ctypedef enum cnn_update_rule:
        CNN_SGD
        CNN_ADAM
        CNN_ADAMW
        CNN_RMSPROP

    ctypedef struct cnn_update:
        cnn_update_rule rule
        int32_t nesterov
        int32_t centered
        int32_t maximize
        double learning_rate
        double momentum
        double dampening
        double beta1
        double beta2
        double eps
        double gradient_scale
        int64_t step

    ctypedef struct cnn_view:
        const void *data
        cnn_shape shape
        int64_t stride[6]
        char kind
        int32_t itemsize
        int32_t byteswapped

    const char *cnn_last_error()
    const char *cnn_version()
    int32_t cnn_abi_version()
    cnn_status cnn_initialize()
    const char *cnn_isa()
    const char *cnn_available_isas()
    int32_t cnn_get_num_threads()
    cnn_status cnn_set_num_threads(int32_t num_threads)
    const char *cnn_thread_backend()

    ctypedef struct cnn_update_group:
        cnn_update update
        int64_t num_segments
        const cnn_segment *segments
        void *state[3]
        int64_t num_shrunk
        const cnn_segment *shrunk
        double threshold

    ctypedef struct cnn_training:
        cnn_dtype dtype
        int32_t accumulate
        int32_t postpone
        int64_t num_trained
        const cnn_segment *trained
        int64_t num_penalized
        const cnn_segment *penalized
        double l1
        double l2
        int32_t proximal
        double clip_norm
        int32_t num_groups
        const cnn_update_group *groups
        double average_decay
        int64_t num_averaged
        const cnn_segment *averaged
        void *average

    cnn_status cnn_average_apply(cnn_dtype dtype, int64_t num_segments, const cnn_segment *segments, double decay,
                                 void *average)
    cnn_status cnn_context_train(cnn_context *context, const cnn_training *training, double *penalty, double *norm)

    cnn_status cnn_graph_create(cnn_dtype dtype, cnn_graph **graph)
    cnn_status cnn_graph_create_with(cnn_dtype dtype, const cnn_allocator *allocator, cnn_graph **graph)
    void cnn_graph_free(cnn_graph *graph)
    cnn_status cnn_graph_input(cnn_graph *graph, cnn_dtype dtype, const cnn_shape *shape, cnn_value *value)
    cnn_status cnn_graph_parameter(cnn_graph *graph, const cnn_shape *shape, cnn_value *value)
    cnn_status cnn_graph_state(cnn_graph *graph, cnn_dtype dtype, const cnn_shape *shape, cnn_value *value)
    cnn_status cnn_graph_apply(cnn_graph *graph, cnn_op op, const cnn_attributes *attributes, int32_t num_sources,
                               const cnn_value *sources, cnn_value *value)
    cnn_status cnn_graph_output(cnn_graph *graph, cnn_value value)
    cnn_status cnn_graph_watch(cnn_graph *graph, cnn_value value)
    cnn_status cnn_graph_require_gradient(cnn_graph *graph, cnn_value value)
    cnn_status cnn_graph_name(cnn_graph *graph, cnn_value value, const char *name)
    cnn_status cnn_graph_describe(cnn_graph *graph, const char *text)
    int32_t cnn_graph_num_values(const cnn_graph *graph)
    cnn_status cnn_graph_shape(const cnn_graph *graph, cnn_value value, cnn_shape *shape)

    cnn_status cnn_plan_create(const cnn_graph *graph, const cnn_plan_options *options, cnn_plan **plan)
    cnn_status cnn_plan_freeze(const cnn_graph *graph, const cnn_plan_options *options, const void *const *data,
                               cnn_plan **plan)
    cnn_status cnn_plan_single(cnn_op op, const cnn_attributes *attributes, cnn_dtype dtype, int32_t num_sources,
                               const cnn_shape *shapes, const cnn_plan_options *options, cnn_plan **plan)
    void cnn_plan_free(cnn_plan *plan)
    int32_t cnn_plan_num_inputs(const cnn_plan *plan)
    int32_t cnn_plan_num_outputs(const cnn_plan *plan)
    cnn_value cnn_plan_input(const cnn_plan *plan, int32_t number)
    cnn_value cnn_plan_output(const cnn_plan *plan, int32_t number)
    cnn_value cnn_plan_find(const cnn_plan *plan, const char *name)
    cnn_status cnn_plan_shape(const cnn_plan *plan, cnn_value value, cnn_shape *shape)
    cnn_status cnn_plan_dtype(const cnn_plan *plan, cnn_value value, cnn_dtype *dtype)
    const char *cnn_plan_name(const cnn_plan *plan, cnn_value value)
    const char *cnn_plan_description(const cnn_plan *plan)
    size_t cnn_plan_bytes(const cnn_plan *plan, cnn_memory kind)

    cnn_status cnn_plan_save(const cnn_plan *plan, const char *path)
    cnn_status cnn_plan_save_memory(const cnn_plan *plan, void *memory, size_t *bytes)
    cnn_status cnn_plan_load(const char *path, const cnn_plan_options *options, cnn_plan **plan)
    cnn_status cnn_plan_load_memory(const void *bytes, size_t size, const cnn_plan_options *options, cnn_plan **plan)

    cnn_status cnn_context_create(const cnn_plan *plan, cnn_context **context)
    size_t cnn_plan_context_bytes(const cnn_plan *plan)
    cnn_status cnn_context_create_in(const cnn_plan *plan, void *memory, size_t bytes, cnn_context **context)
    void cnn_context_free(cnn_context *context)
    size_t cnn_context_bytes(const cnn_context *context)
    cnn_status cnn_context_bind(cnn_context *context, cnn_value value, void *data, void *diff)
    cnn_status cnn_context_random(cnn_context *context, uint64_t seed, uint64_t call)
    ctypedef void (*cnn_executor_fn)(void *state, int32_t participants,
                                     void (*part)(void *arg, int32_t participant) noexcept, void *arg) noexcept
    cnn_status cnn_context_set_executor(cnn_context *context, cnn_executor_fn executor, void *state)
    cnn_status cnn_context_forward(cnn_context *context)
    cnn_status cnn_context_backward(cnn_context *context)

    cnn_status cnn_update_apply(const cnn_update *update, cnn_dtype dtype, int64_t num_segments,
                                const cnn_segment *segments, void *const *state)
    cnn_status cnn_gradient_norm(cnn_dtype dtype, int64_t num_segments, const cnn_segment *segments, int32_t infinity,
                                 double *norm)
    cnn_status cnn_gradient_scale(cnn_dtype dtype, int64_t num_segments, const cnn_segment *segments, double scale)
    cnn_status cnn_penalty(cnn_dtype dtype, int64_t num_segments, const cnn_segment *segments, double l1, double l2,
                           int32_t add_gradient, double *penalty)
    cnn_status cnn_soft_threshold(cnn_dtype dtype, int64_t num_segments, const cnn_segment *segments, double threshold)
    cnn_status cnn_fill_uniform(cnn_dtype dtype, int64_t n, void *dst, double low, double high, uint64_t seed,
                                uint64_t stream)
    cnn_status cnn_fill_normal(cnn_dtype dtype, int64_t n, void *dst, double mean, double std, uint64_t seed,
                               uint64_t stream)

    int32_t cnn_view_is_dense(const cnn_view *view, cnn_dtype dtype, int32_t channels_last)
    cnn_status cnn_view_import(const cnn_view *view, cnn_dtype dtype, int32_t channels_last, void *dst)
