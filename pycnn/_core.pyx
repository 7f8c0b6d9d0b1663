# cython: language_level=3, binding=True, embedsignature=True
"""The binding of cnn_core: graphs, runs of them, and sweeps over parameters.

Everything here is thin. Foreign memory enters through one function, `Border.take`; every call into the engine that may
take long releases the GIL; every status that is not CNN_OK becomes an exception.
"""
from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_RECORDS_RO,
    PyBUF_STRIDED,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from _thread import allocate_lock
from sys import byteorder

from numpy import empty, float32, float64

cdef bint LITTLE_ENDIAN = byteorder == "little"


# ---- status and shapes -----------------------------------------------------------------------------------------------

cdef int check(cnn_status status) except -1:
    """Turns a status that is not CNN_OK into an exception with the core's message."""
    if status == CNN_OK:
        return 0
    message = cnn_last_error().decode("utf-8", "replace")
    if status == CNN_INVALID_TYPE:
        raise TypeError(message)
    if status == CNN_OUT_OF_MEMORY:
        raise MemoryError(message)
    if status == CNN_INVALID_VALUE:
        raise ValueError(message)
    raise RuntimeError(message)


cdef cnn_dtype dtype_code(dtype) except *:
    if dtype == "float32":
        return CNN_FLOAT32
    if dtype == "float64":
        return CNN_FLOAT64
    if dtype == "int64":
        return CNN_INT64
    raise TypeError(f"dtype: got {dtype!r}, expected 'float32', 'float64' or 'int64'")


cdef str dtype_name(cnn_dtype dtype):
    return "float32" if dtype == CNN_FLOAT32 else ("float64" if dtype == CNN_FLOAT64 else "int64")


cdef int read_shape(shape, cnn_shape *out) except -1:
    if len(shape) > CNN_MAX_RANK:
        raise ValueError(f"shape: got {len(shape)} dimensions {tuple(shape)}, expected at most {CNN_MAX_RANK}")
    memset(out, 0, sizeof(cnn_shape))
    out.rank = <int32_t>len(shape)
    for i in range(out.rank):
        out.dim[i] = shape[i]
    return 0


cdef tuple shape_tuple(const cnn_shape *shape):
    return tuple([shape.dim[i] for i in range(shape.rank)])


cdef int read_pair(values, int64_t *out) except -1:
    out[0], out[1] = values
    return 0


# ---- the border ------------------------------------------------------------------------------------------------------

cdef class Border:
    """Where one array comes in: used in place when its memory already is what the engine reads, else copied once into
    memory that is kept for the next time. Holds the array until the next `take` or `drop`."""

    cdef Py_buffer buffer
    cdef bint held
    cdef object staging       # a NumPy array that owns the copy
    cdef Py_buffer staged
    cdef bint has_staging
    cdef void *data

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.buffer)
        if self.has_staging:
            PyBuffer_Release(&self.staged)

    cdef void drop(self):
        if self.held:
            PyBuffer_Release(&self.buffer)
            self.held = False

    cdef int take(self, array, str name, cnn_dtype dtype, tuple shape, bint channels_last, bint copy) except -1:
        """Sets self.data to dense memory with the array's elements, in the engine's layout. Errors name `name`."""
        cdef cnn_view view
        self.drop()
        acquire(array, name, dtype, &self.buffer)
        self.held = True
        describe(&self.buffer, array, name, dtype, &view)
        if shape_tuple(&view.shape) != shape:
            raise ValueError(f"{name}: got shape {shape_tuple(&view.shape)}, expected {shape}")
        if not copy and cnn_view_is_dense(&view, dtype, channels_last):
            self.data = <void *>view.data
            return 0
        self.ensure_staging(dtype, shape)
        self.data = self.staged.buf
        cdef cnn_status status
        cdef void *target = self.data
        with nogil:
            status = cnn_view_import(&view, dtype, channels_last, target)
        self.drop()
        if status != CNN_OK:
            message = cnn_last_error().decode("utf-8", "replace")
            raise (TypeError if status == CNN_INVALID_TYPE else ValueError)(f"{name}: {message}")
        return 0

    cdef int ensure_staging(self, cnn_dtype dtype, tuple shape) except -1:
        if self.has_staging:
            return 0
        self.staging = empty(shape, dtype_name(dtype))
        PyObject_GetBuffer(self.staging, &self.staged, PyBUF_STRIDED | PyBUF_WRITABLE)
        self.has_staging = True
        return 0


cdef int acquire(array, str name, cnn_dtype dtype, Py_buffer *buffer) except -1:
    if not PyObject_CheckBuffer(array):
        raise TypeError(f"{name}: got {type(array).__name__}, expected a NumPy array of {dtype_name(dtype)}")
    try:
        PyObject_GetBuffer(array, buffer, PyBUF_RECORDS_RO)
    except (ValueError, BufferError, TypeError) as error:
        got = getattr(array, "dtype", type(array).__name__)
        raise TypeError(f"{name}: got {got}, expected a NumPy array of {dtype_name(dtype)}") from error
    return 0


cdef int describe(Py_buffer *buffer, array, str name, cnn_dtype dtype, cnn_view *view) except -1:
    """Reads rank, shape, byte strides and format; refuses, by name, what `dtype` cannot be read from."""
    cdef bytes text = b"B" if buffer.format == NULL else buffer.format
    cdef bytes order = text[:1] if text[:1] in b"<>=@!" else b"@"
    cdef bytes code = text.lstrip(b"<>=@!")
    cdef bint integer = dtype == CNN_INT64
    cdef bytes wanted = b"bhilqnBHILQN" if integer else (b"f" if dtype == CNN_FLOAT32 else b"d")
    if len(code) != 1 or code not in wanted:
        got = getattr(array, "dtype", text.decode("ascii", "replace"))
        raise TypeError(f"{name}: got dtype {got}, expected {'an integer dtype' if integer else dtype_name(dtype)}")
    if buffer.ndim > CNN_MAX_RANK:
        raise ValueError(f"{name}: got {buffer.ndim} dimensions, expected at most {CNN_MAX_RANK}")
    memset(view, 0, sizeof(cnn_view))
    view.data = buffer.buf
    view.itemsize = <int32_t>buffer.itemsize
    view.kind = (b"i"[0] if code in b"bhilqn" else b"u"[0]) if integer else b"f"[0]
    if buffer.itemsize > 1 and order in b"<>!":
        view.byteswapped = (order == b"<") != LITTLE_ENDIAN
    view.shape.rank = <int32_t>buffer.ndim
    for i in range(buffer.ndim):
        view.shape.dim[i] = buffer.shape[i]
        view.stride[i] = buffer.strides[i]
    return 0


cdef class Memory:
    """A NumPy array that the engine reads and writes in place: a parameter, its gradient, a statistic, a result."""

    cdef Py_buffer buffer
    cdef bint held
    cdef void *data
    cdef int64_t length

    def __cinit__(self, array, dtype):
        if array.dtype != dtype or not array.flags.c_contiguous or not array.flags.writeable:
            raise ValueError(f"memory: got {array.dtype} array, expected a writable contiguous array of {dtype}")
        PyObject_GetBuffer(array, &self.buffer, PyBUF_STRIDED | PyBUF_WRITABLE)
        self.held = True
        self.data = self.buffer.buf
        self.length = array.size

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.buffer)


# ---- graphs ----------------------------------------------------------------------------------------------------------

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

    def __cinit__(self, str dtype):
        self.dtype = dtype
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

    def require_gradient(self, cnn_value value):
        check(cnn_graph_require_gradient(self.graph, value))

    def shape(self, cnn_value value):
        cdef cnn_shape c_shape
        check(cnn_graph_shape(self.graph, value, &c_shape))
        return shape_tuple(&c_shape)

    cdef apply(self, cnn_op op, cnn_attributes *attributes, sources):
        cdef cnn_value c_sources[32]
        cdef cnn_value value
        if len(sources) > CNN_MAX_SOURCES:
            raise ValueError(f"sources: got {len(sources)} tensors, expected at most {CNN_MAX_SOURCES}")
        for i, source in enumerate(sources):
            c_sources[i] = CNN_NONE if source is None else source
        check(cnn_graph_apply(self.graph, op, attributes, <int32_t>len(sources), c_sources, &value))
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


# ---- runs ------------------------------------------------------------------------------------------------------------

cdef tuple dense_result(tuple shape, dtype):
    """An array of this logical shape in the engine's layout, and the same memory as a contiguous array."""
    if len(shape) == 4:
        memory = empty((shape[0], shape[2], shape[3], shape[1]), dtype)
        return memory.transpose(0, 3, 1, 2), memory
    memory = empty(shape, dtype)
    return memory, memory


cdef class Runner:
    """A plan of a graph and a context to run it in.

    inputs: [(name, value, dtype)], in the order of the arguments of `forward`; outputs: [value]; both say their shapes
    through the graph. With `copy`, what backward reads of the inputs is the engine's own, so that a caller may change
    an array between forward and backward. One run at a time: a second thread waits."""

    cdef cnn_plan *plan
    cdef cnn_context *context
    cdef list names, input_values, input_shapes, output_values, output_shapes
    cdef list borders, diff_borders, results, bound
    cdef list input_dtypes
    cdef bint copy
    cdef object numpy_dtype, lock
    cdef cnn_dtype dtype
    cdef readonly bint has_backward

    def __cinit__(self, Graph graph, list inputs, list outputs, bint backward=True, bint repeat=True, bint copy=True,
                  bint reference=False):
        cdef cnn_plan_options options
        memset(&options, 0, sizeof(options))
        options.backward = backward
        options.repeat = repeat
        options.reference = reference
        check(cnn_plan_create(graph.graph, &options, &self.plan))
        check(cnn_context_create(self.plan, &self.context))
        self.dtype = dtype_code(graph.dtype)
        self.numpy_dtype = float32 if self.dtype == CNN_FLOAT32 else float64
        self.names = [name for name, _, _ in inputs]
        self.input_values = [value for _, value, _ in inputs]
        self.input_dtypes = [dtype for _, _, dtype in inputs]
        self.input_shapes = [graph.shape(value) for value in self.input_values]
        self.output_values = outputs
        self.output_shapes = [graph.shape(value) for value in outputs]
        self.borders = [Border() for _ in inputs]
        self.diff_borders = [Border() for _ in outputs]
        self.bound = []
        self.copy = copy
        self.lock = allocate_lock()
        self.has_backward = backward

    def __dealloc__(self):
        cnn_context_free(self.context)
        cnn_plan_free(self.plan)

    @property
    def bytes(self):
        """Bytes of activations, saved tensors, gradients and workspace."""
        return cnn_context_bytes(self.context)

    def bind(self, cnn_value value, data, diff=None):
        """Names the memory of a parameter (with its gradient) or a state; the arrays are held."""
        cdef Memory data_memory = Memory(data, data.dtype)
        cdef Memory diff_memory = None if diff is None else Memory(diff, diff.dtype)
        self.bound.append((data_memory, diff_memory))
        check(cnn_context_bind(self.context, value, data_memory.data,
                               NULL if diff_memory is None else diff_memory.data))

    def forward(self, tuple arrays, uint64_t seed=0, uint64_t call=0):
        """Runs forward on one array per input and returns a list of new arrays, one per output."""
        with self.lock:
            return self.run_forward(arrays, seed, call)

    cdef list run_forward(self, tuple arrays, uint64_t seed, uint64_t call):
        cdef Border border
        cdef Memory memory
        cdef cnn_status status
        cdef cnn_dtype dtype
        if len(arrays) != len(self.names):
            raise TypeError(f"forward: got {len(arrays)} arguments, expected {len(self.names)}")
        self.results = None  # until this run has succeeded there is nothing to go back from
        for i in range(len(arrays)):
            border = self.borders[i]
            dtype = dtype_code(self.input_dtypes[i])
            border.take(arrays[i], self.names[i], dtype, self.input_shapes[i], True, self.copy)
            check(cnn_context_bind(self.context, self.input_values[i], border.data, NULL))
        results = []
        memories = []
        for i in range(len(self.output_values)):
            result, contiguous = dense_result(self.output_shapes[i], self.numpy_dtype)
            memory = Memory(contiguous, self.numpy_dtype)
            results.append(result)
            memories.append(memory)
            check(cnn_context_bind(self.context, self.output_values[i], memory.data, NULL))
        check(cnn_context_random(self.context, seed, call))
        with nogil:
            status = cnn_context_forward(self.context)
        check(status)
        # Outputs that backward reads are kept inside; nothing of the caller's is referred to any more but the inputs.
        self.results = memories
        return results

    def backward(self, tuple arrays, bint want_inputs=True):
        """Runs backward from one gradient per output (None: zero); parameters' gradients accumulate. Returns a list of
        new arrays, one per input, None for those without a gradient, or None altogether unless `want_inputs`."""
        with self.lock:
            return self.run_backward(arrays, want_inputs)

    cdef list run_backward(self, tuple arrays, bint want_inputs):
        cdef Border border
        cdef Memory memory
        cdef Memory result
        cdef cnn_status status
        if self.results is None:
            raise RuntimeError("backward: call forward first")
        if len(arrays) != len(self.output_values):
            raise TypeError(f"backward: got {len(arrays)} gradients, expected {len(self.output_values)}")
        for i in range(len(arrays)):
            border = self.diff_borders[i]
            array = arrays[i]
            if array is None and len(arrays) > 1:
                array = dense_result(self.output_shapes[i], self.numpy_dtype)[0]
                array[...] = 0
            name = "dy" if len(arrays) == 1 else f"dy[{i}]"
            border.take(array, name, self.dtype, self.output_shapes[i], True, False)
            result = self.results[i]
            check(cnn_context_bind(self.context, self.output_values[i], result.data, border.data))
        gradients = []
        memories = []
        for i in range(len(self.input_values)):
            border = self.borders[i]
            if not want_inputs or self.input_dtypes[i] == "int64":
                gradients.append(None)
                check(cnn_context_bind(self.context, self.input_values[i], border.data, NULL))
                continue
            gradient, contiguous = dense_result(self.input_shapes[i], self.numpy_dtype)
            memory = Memory(contiguous, self.numpy_dtype)
            memories.append(memory)
            gradients.append(gradient)
            check(cnn_context_bind(self.context, self.input_values[i], border.data, memory.data))
        with nogil:
            status = cnn_context_backward(self.context)
        for border in self.diff_borders:
            border.drop()
        check(status)
        return gradients if want_inputs else None


# ---- sweeps over parameters ------------------------------------------------------------------------------------------

cdef dict RULES = {"sgd": CNN_SGD, "adam": CNN_ADAM, "adamw": CNN_ADAMW, "rmsprop": CNN_RMSPROP}


cdef class Segments:
    """A table of runs of trainable numbers: [(weights, diff_weights, state_offset)], flat arrays of one dtype."""

    cdef cnn_segment *segments
    cdef int64_t count
    cdef list memory
    cdef cnn_dtype dtype
    cdef str dtype_text

    def __cinit__(self, dtype, list rows):
        cdef Memory weights
        cdef Memory diff
        self.dtype_text = str(dtype)
        self.dtype = dtype_code(self.dtype_text)
        self.count = len(rows)
        self.segments = <cnn_segment *>calloc(len(rows) + 1, sizeof(cnn_segment))
        if self.segments == NULL:
            raise MemoryError("no memory for a segment table")
        self.memory = []
        for i in range(len(rows)):
            weights = Memory(rows[i][0], self.dtype_text)
            diff = Memory(rows[i][1], self.dtype_text)
            if weights.length != diff.length:
                raise ValueError(f"diff_weights: got {diff.length} elements, expected {weights.length}")
            self.memory.append((weights, diff))
            self.segments[i].weights = weights.data
            self.segments[i].diff_weights = diff.data
            self.segments[i].length = weights.length
            self.segments[i].state_offset = rows[i][2]
            self.segments[i].lr_scale = 1.0

    def __dealloc__(self):
        free(self.segments)

    def update(self, rule, tuple state, int64_t step, double lr, double weight_decay=0.0, double momentum=0.0,
               double dampening=0.0, bint nesterov=False, double beta1=0.0, double beta2=0.0, double eps=0.0,
               bint centered=False, bint maximize=False, double gradient_scale=1.0):
        """One fused sweep: weights and state change in place. state: up to three flat arrays, None where unused."""
        cdef cnn_update u
        cdef void *c_state[3]
        cdef Memory memory
        cdef cnn_status status
        memset(&u, 0, sizeof(u))
        u.rule = RULES[rule]
        u.learning_rate = lr
        u.momentum = momentum
        u.dampening = dampening
        u.nesterov = nesterov
        u.beta1 = beta1
        u.beta2 = beta2
        u.eps = eps
        u.centered = centered
        u.maximize = maximize
        u.gradient_scale = gradient_scale
        u.step = step
        for i in range(self.count):
            self.segments[i].weight_decay = weight_decay
        held = []
        for i in range(3):
            c_state[i] = NULL
            if i < len(state) and state[i] is not None:
                memory = Memory(state[i], self.dtype_text)
                held.append(memory)
                c_state[i] = memory.data
        with nogil:
            status = cnn_update_apply(&u, self.dtype, self.count, self.segments, c_state)
        check(status)

    def gradient_norm(self, bint infinity=False):
        cdef double norm
        cdef cnn_status status
        with nogil:
            status = cnn_gradient_norm(self.dtype, self.count, self.segments, infinity, &norm)
        check(status)
        return norm

    def scale_gradients(self, double scale):
        cdef cnn_status status
        with nogil:
            status = cnn_gradient_scale(self.dtype, self.count, self.segments, scale)
        check(status)

    def penalty(self, double l1, double l2, bint add_gradient):
        cdef double penalty
        cdef cnn_status status
        with nogil:
            status = cnn_penalty(self.dtype, self.count, self.segments, l1, l2, add_gradient, &penalty)
        check(status)
        return penalty

    def soft_threshold(self, double threshold):
        cdef cnn_status status
        with nogil:
            status = cnn_soft_threshold(self.dtype, self.count, self.segments, threshold)
        check(status)


def fill_uniform(array, double low, double high, uint64_t seed, uint64_t stream):
    """array = uniform numbers in [low, high), in place."""
    cdef Memory memory = Memory(array, array.dtype)
    check(cnn_fill_uniform(dtype_code(str(array.dtype)), memory.length, memory.data, low, high, seed, stream))


def fill_normal(array, double mean, double std, uint64_t seed, uint64_t stream):
    """array = normal numbers, in place."""
    cdef Memory memory = Memory(array, array.dtype)
    check(cnn_fill_normal(dtype_code(str(array.dtype)), memory.length, memory.data, mean, std, seed, stream))


# ---- machine ---------------------------------------------------------------------------------------------------------

def get_num_threads():
    """Threads that a parallel region of the engine uses."""
    return cnn_get_num_threads()


def set_num_threads(num_threads):
    """Makes parallel regions use `num_threads` threads (1 to 1024). Results do not depend on it."""
    if not isinstance(num_threads, int) or isinstance(num_threads, bool):
        raise TypeError(f"num_threads: got {type(num_threads).__name__}, expected int")
    if not 1 <= num_threads <= 1024:
        raise ValueError(f"num_threads: got {num_threads}, expected 1 to 1024")
    check(cnn_set_num_threads(num_threads))


def cpu_info():
    """What runs: version, isa, available_isas, num_threads, thread_backend."""
    return {
        "version": cnn_version().decode(),
        "abi_version": cnn_abi_version(),
        "isa": cnn_isa().decode(),
        "available_isas": cnn_available_isas().decode().split(),
        "num_threads": cnn_get_num_threads(),
        "thread_backend": cnn_thread_backend().decode(),
    }


check(cnn_initialize())
