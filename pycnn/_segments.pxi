# Sweeps over parameters, and random numbers to start them with.

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
