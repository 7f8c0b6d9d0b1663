# Graphs in the making.

cdef dict ACTIVATIONS = {
    "sigmoid": CNN_SIGMOID, "tanh": CNN_TANH, "relu": CNN_RELU, "relu6": CNN_RELU6, "leaky_relu": CNN_LEAKY_RELU,
    "softplus": CNN_SOFTPLUS, "mish": CNN_MISH, "silu": CNN_SILU, "gelu": CNN_GELU, "gelu_tanh": CNN_GELU_TANH,
    "elu": CNN_ELU, "selu": CNN_SELU, "hardswish": CNN_HARDSWISH, "hardsigmoid": CNN_HARDSIGMOID,
}
cdef dict NORMS = {"batch_norm": CNN_OP_BATCH_NORM, "instance_norm": CNN_OP_INSTANCE_NORM,
                   "group_norm": CNN_OP_GROUP_NORM, "layer_norm": CNN_OP_LAYER_NORM}
cdef dict LOSSES = {"cross_entropy": CNN_OP_CROSS_ENTROPY, "nll": CNN_OP_NLL, "mse": CNN_OP_MSE, "l1": CNN_OP_L1,
                    "bce_with_logits": CNN_OP_BCE_WITH_LOGITS}
cdef dict REDUCTIONS = {"none": CNN_REDUCE_NONE, "mean": CNN_REDUCE_MEAN, "sum": CNN_REDUCE_SUM}


cdef class Graph:
    """A graph in the making. Values are numbers; a source that an operation may do without is None.

    The methods name operations, sources and attributes as cnn_core.h does, and raise ValueError for what the operation
    does not take."""

    cdef cnn_graph *graph
    cdef readonly str dtype
    cdef readonly dict sources  # by result: the values that it is made of

    def __cinit__(self, str dtype):
        self.dtype = dtype
        self.sources = {}
        check(cnn_graph_create(dtype_code(dtype), &self.graph))

    def __dealloc__(self):
        cnn_graph_free(self.graph)

    def input(self, shape, dtype=None):
        cdef cnn_shape c_shape
        cdef cnn_value value
        read_shape(shape, &c_shape)
        check(cnn_graph_input(self.graph, dtype_code(dtype or self.dtype), &c_shape, &value))
        return value

    def parameter(self, shape):
        cdef cnn_shape c_shape
        cdef cnn_value value
        read_shape(shape, &c_shape)
        check(cnn_graph_parameter(self.graph, &c_shape, &value))
        return value

    def state(self, shape, dtype):
        cdef cnn_shape c_shape
        cdef cnn_value value
        read_shape(shape, &c_shape)
        check(cnn_graph_state(self.graph, dtype_code(dtype), &c_shape, &value))
        return value

    def output(self, cnn_value value):
        check(cnn_graph_output(self.graph, value))

    def watch(self, cnn_value value):
        check(cnn_graph_watch(self.graph, value))

    def require_gradient(self, cnn_value value):
        check(cnn_graph_require_gradient(self.graph, value))

    def shape(self, cnn_value value):
        cdef cnn_shape c_shape
        check(cnn_graph_shape(self.graph, value, &c_shape))
        return shape_tuple(&c_shape)

    def name(self, cnn_value value, str name):
        """Names a value; what is no text of the engine's, or too long, it goes without."""
        text = name.encode("utf-8", "ignore")
        if 0 < len(text) < CNN_NAME_BYTES and 0 not in text:
            check(cnn_graph_name(self.graph, value, text))

    def describe(self, str text):
        check(cnn_graph_describe(self.graph, text.encode()))

    cdef apply(self, cnn_op op, cnn_attributes *attributes, sources):
        cdef cnn_value c_sources[32]
        cdef cnn_value value
        if len(sources) > CNN_MAX_SOURCES:
            raise ValueError(f"sources: got {len(sources)} tensors, expected at most {CNN_MAX_SOURCES}")
        for i, source in enumerate(sources):
            c_sources[i] = CNN_NONE if source is None else source
        check(cnn_graph_apply(self.graph, op, attributes, <int32_t>len(sources), c_sources, &value))
        self.sources[value] = tuple(sources)
        return value

    def conv2d(self, src, weights, bias, stride, padding, dilation, groups):
        cdef cnn_attributes a
        memset(&a, 0, sizeof(a))
        read_pair(stride, a.conv.stride)
        read_pair(dilation, a.conv.dilation)
        a.conv.padding[0], a.conv.padding[1], a.conv.padding[2], a.conv.padding[3] = padding
        a.conv.groups = groups
        return self.apply(CNN_OP_CONV2D, &a, (src, weights, bias))

    def conv_transpose2d(self, src, weights, bias, stride, padding, output_padding, dilation, groups):
        cdef cnn_attributes a
        memset(&a, 0, sizeof(a))
        read_pair(stride, a.conv.stride)
        read_pair(dilation, a.conv.dilation)
        read_pair(output_padding, a.conv.output_padding)
        a.conv.padding[0], a.conv.padding[1], a.conv.padding[2], a.conv.padding[3] = padding
        a.conv.groups = groups
        return self.apply(CNN_OP_CONV_TRANSPOSE2D, &a, (src, weights, bias))

    def linear(self, src, weights, bias):
        return self.apply(CNN_OP_LINEAR, NULL, (src, weights, bias))

    def norm(self, kind, sources, eps, momentum=0.1, groups=1, axes=1, training=True):
        cdef cnn_attributes a
        memset(&a, 0, sizeof(a))
        a.norm.eps = eps
        a.norm.momentum = -1.0 if momentum is None else momentum
        a.norm.groups = groups
        a.norm.axes = axes
        a.norm.training = bool(training)
        return self.apply(NORMS[kind], &a, sources)

    def activation(self, kind, src, alpha=0.0, beta=0.0):
        cdef cnn_attributes a
        memset(&a, 0, sizeof(a))
        a.activation.kind = ACTIVATIONS[kind]
        a.activation.alpha = alpha
        a.activation.beta = beta
        return self.apply(CNN_OP_ACTIVATION, &a, (src,))

    def prelu(self, src, slope):
        return self.apply(CNN_OP_PRELU, NULL, (src, slope))

    def softmax(self, src, axis, log):
        cdef cnn_attributes a
        memset(&a, 0, sizeof(a))
        a.axis.axis = axis
        return self.apply(CNN_OP_LOG_SOFTMAX if log else CNN_OP_SOFTMAX, &a, (src,))

    def max_pool2d(self, src, kernel, stride, padding, dilation, ceil_mode):
        cdef cnn_attributes a
        memset(&a, 0, sizeof(a))
        read_pair(kernel, a.pool.kernel)
        read_pair(stride, a.pool.stride)
        read_pair(padding, a.pool.padding)
        read_pair(dilation, a.pool.dilation)
        a.pool.ceil_mode = bool(ceil_mode)
        return self.apply(CNN_OP_MAX_POOL2D, &a, (src,))

    def avg_pool2d(self, src, kernel, stride, padding, ceil_mode, count_include_pad, divisor):
        cdef cnn_attributes a
        memset(&a, 0, sizeof(a))
        read_pair(kernel, a.pool.kernel)
        read_pair(stride, a.pool.stride)
        read_pair(padding, a.pool.padding)
        a.pool.dilation[0] = a.pool.dilation[1] = 1
        a.pool.ceil_mode = bool(ceil_mode)
        a.pool.count_include_pad = bool(count_include_pad)
        a.pool.divisor = divisor
        return self.apply(CNN_OP_AVG_POOL2D, &a, (src,))

    def resize(self, kind, src, size, scale=(0.0, 0.0), align_corners=False):
        cdef cnn_attributes a
        memset(&a, 0, sizeof(a))
        read_pair(size, a.resize.size)
        a.resize.scale[0], a.resize.scale[1] = scale
        a.resize.align_corners = bool(align_corners)
        ops = {"adaptive_avg_pool2d": CNN_OP_ADAPTIVE_AVG_POOL2D, "nearest": CNN_OP_UPSAMPLE_NEAREST,
               "bilinear": CNN_OP_UPSAMPLE_BILINEAR}
        return self.apply(ops[kind], &a, (src,))

    def dropout(self, src, p, training, per_channel):
        cdef cnn_attributes a
        memset(&a, 0, sizeof(a))
        a.dropout.p = p
        a.dropout.training = bool(training)
        a.dropout.per_channel = bool(per_channel)
        return self.apply(CNN_OP_DROPOUT, &a, (src,))

    def reshape(self, src, shape):
        cdef cnn_attributes a
        memset(&a, 0, sizeof(a))
        read_shape(shape, &a.reshape.shape)
        return self.apply(CNN_OP_RESHAPE, &a, (src,))

    def add(self, left, right, alpha=1.0):
        cdef cnn_attributes a
        memset(&a, 0, sizeof(a))
        a.affine.alpha = alpha
        return self.apply(CNN_OP_ADD, &a, (left, right))

    def multiply(self, left, right):
        return self.apply(CNN_OP_MULTIPLY, NULL, (left, right))

    def affine(self, src, alpha, beta):
        cdef cnn_attributes a
        memset(&a, 0, sizeof(a))
        a.affine.alpha = alpha
        a.affine.beta = beta
        return self.apply(CNN_OP_AFFINE, &a, (src,))

    def concat(self, sources, axis):
        cdef cnn_attributes a
        memset(&a, 0, sizeof(a))
        a.axis.axis = axis
        return self.apply(CNN_OP_CONCAT, &a, sources)

    def slice(self, src, start, step, size):
        cdef cnn_attributes a
        memset(&a, 0, sizeof(a))
        for i in range(len(start)):
            a.slice.start[i] = start[i]
            a.slice.step[i] = step[i]
            a.slice.size[i] = size[i]
        return self.apply(CNN_OP_SLICE, &a, (src,))

    def loss(self, kind, sources, reduction, label_smoothing=0.0, ignore_index=-100):
        cdef cnn_attributes a
        memset(&a, 0, sizeof(a))
        a.loss.reduction = REDUCTIONS[reduction]
        a.loss.label_smoothing = label_smoothing
        a.loss.ignore_index = ignore_index
        return self.apply(LOSSES[kind], &a, sources)
