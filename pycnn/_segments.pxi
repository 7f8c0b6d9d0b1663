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

    def update(self, rule, tuple state, int64_t step, **options):
        """One fused sweep: weights and state change in place. state: up to three flat arrays, None where unused."""
        cdef cnn_update_group group
        cdef cnn_status status
        held = self.describe(&group, rule, state, step, options)
        with nogil:
            status = cnn_update_apply(&group.update, self.dtype, group.num_segments, group.segments, group.state)
        check(status)

    cdef list describe(self, cnn_update_group *group, rule, tuple state, int64_t step, dict options):
        """Fills in all but the proximal step; returns what must live as long as the group is used."""
        cdef Memory memory
        cdef cnn_update *u = &group.update
        memset(group, 0, sizeof(group[0]))
        u.rule = RULES[rule]
        u.step = step
        u.gradient_scale = 1.0
        u.learning_rate = options["lr"]
        u.momentum = options.get("momentum", 0.0)
        u.dampening = options.get("dampening", 0.0)
        u.nesterov = bool(options.get("nesterov", False))
        u.beta1 = options.get("beta1", 0.0)
        u.beta2 = options.get("beta2", 0.0)
        u.eps = options.get("eps", 0.0)
        u.centered = bool(options.get("centered", False))
        u.maximize = bool(options.get("maximize", False))
        cdef double weight_decay = options.get("weight_decay", 0.0)
        for i in range(self.count):
            self.segments[i].weight_decay = weight_decay
        group.num_segments = self.count
        group.segments = self.segments
        held = []
        for i in range(len(state)):
            if state[i] is not None:
                memory = Memory(state[i], self.dtype_text)
                held.append(memory)
                group.state[i] = memory.data
        return held

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

    def average(self, array, double decay):
        """array = decay array + (1 - decay) weights; a segment lies in array at its state_offset."""
        cdef Memory memory = Memory(array, self.dtype_text)
        cdef cnn_status status
        with nogil:
            status = cnn_average_apply(self.dtype, self.count, self.segments, decay, memory.data)
        check(status)

    def soft_threshold(self, double threshold):
        cdef cnn_status status
        with nogil:
            status = cnn_soft_threshold(self.dtype, self.count, self.segments, threshold)
        check(status)


cdef class Training:
    """What a training step does beside forward and backward, as tables that stay while parameters stay where they are.

    trained: Segments of all parameters that have gradients. penalized: those that a penalty falls on, or None. sweeps:
    [(Segments, Segments that take a proximal step or None)], in the order of `set_sweep`. averaged: (Segments, flat
    array, decay), or None."""

    cdef cnn_training c
    cdef cnn_update_group *groups
    cdef list sweeps, held, memories

    def __cinit__(self, Segments trained not None, Segments penalized, list sweeps, double clip_norm=0.0,
                  averaged=None):
        cdef Segments table
        cdef Memory memory
        memset(&self.c, 0, sizeof(self.c))
        self.groups = <cnn_update_group *>calloc(len(sweeps) + 1, sizeof(cnn_update_group))
        if self.groups == NULL:
            raise MemoryError("no memory for a training step")
        self.sweeps = sweeps
        self.held = [trained, penalized]
        self.memories = [None] * len(sweeps)
        self.c.dtype = trained.dtype
        self.c.num_trained = trained.count
        self.c.trained = trained.segments
        if penalized is not None:
            self.c.num_penalized = penalized.count
            self.c.penalized = penalized.segments
        self.c.clip_norm = clip_norm
        self.c.num_groups = <int32_t>len(sweeps)
        self.c.groups = self.groups
        if averaged is not None:
            table, array, decay = averaged
            memory = Memory(array, trained.dtype_text)
            self.held += [table, memory]
            self.c.num_averaged = table.count
            self.c.averaged = table.segments
            self.c.average = memory.data
            self.c.average_decay = decay

    def __dealloc__(self):
        free(self.groups)

    def set_penalty(self, double l1, double l2, bint proximal):
        self.c.l1 = l1
        self.c.l2 = l2
        self.c.proximal = proximal

    def set_sweep(self, int number, rule, tuple state, int64_t step, dict options, double threshold=0.0):
        """The update of the numbered sweep in the next step; arguments as of `Segments.update`."""
        cdef Segments segments, shrunk
        segments, shrunk = self.sweeps[number]
        self.memories[number] = segments.describe(&self.groups[number], rule, state, step, options)
        if shrunk is not None:
            self.groups[number].num_shrunk = shrunk.count
            self.groups[number].shrunk = shrunk.segments
            self.groups[number].threshold = threshold


def fill_uniform(array, double low, double high, uint64_t seed, uint64_t stream):
    """array = uniform numbers in [low, high), in place."""
    cdef Memory memory = Memory(array, array.dtype)
    check(cnn_fill_uniform(dtype_code(str(array.dtype)), memory.length, memory.data, low, high, seed, stream))


def fill_normal(array, double mean, double std, uint64_t seed, uint64_t stream):
    """array = normal numbers, in place."""
    cdef Memory memory = Memory(array, array.dtype)
    check(cnn_fill_normal(dtype_code(str(array.dtype)), memory.length, memory.data, mean, std, seed, stream))
