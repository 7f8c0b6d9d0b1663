# A plan and a context: what runs a graph.

cdef dict RECOMPUTE = {"cheap": CNN_RECOMPUTE_CHEAP, "none": CNN_RECOMPUTE_NONE, "most": CNN_RECOMPUTE_MOST}


cdef class Arena:
    """Memory that runners take in turn, as long as the largest of them needs. The one that has it keeps it from a forward to
    its backward; the next that runs takes it away, and with it what the other had saved. One run at a time: a second thread
    waits."""

    cdef void *memory
    cdef readonly size_t bytes
    cdef object owner  # a weak reference to a Runner, or None
    cdef object lock

    def __cinit__(self):
        self.lock = allocate_lock()

    def __dealloc__(self):
        cnn_aligned_free(self.memory)

    def __reduce__(self):
        return Arena, ()  # a copy has memory of its own

    cdef int pass_on(self, object owner, size_t bytes) except -1:
        """To another owner, with at least so many bytes."""
        cdef Runner last = None if self.owner is None or self.owner is owner else self.owner()
        self.owner = None
        if last is not None:
            last.forget()
        if bytes > self.bytes:
            cnn_aligned_free(self.memory)
            self.bytes = 0
            self.memory = cnn_aligned_alloc(bytes)
            if self.memory == NULL:
                raise MemoryError(f"no memory for the network's {bytes} bytes of activations")
            self.bytes = bytes
        self.owner = owner
        return 0


cdef class Runner:
    """A plan of a graph and a context to run it in.

    inputs: [(name, value, dtype)], in the order of the arguments of `forward`; outputs: [value]; both say their shapes
    through the graph. With `copy`, what backward reads of the inputs is the engine's own, so that a caller may change
    an array between forward and backward. The context's memory is the arena's."""

    cdef object __weakref__
    cdef cnn_plan *plan
    cdef cnn_context *context  # in the arena, while it is there for this runner
    cdef int32_t threads       # for which it was made
    cdef Arena arena
    cdef object me             # a weak reference
    cdef list names, input_values, input_shapes, output_values, output_shapes
    cdef list borders, diff_borders, bound
    cdef list outputs, gradients  # Results
    cdef bint ran
    cdef list input_dtypes
    cdef bint copy
    cdef object numpy_dtype
    cdef cnn_dtype dtype
    cdef readonly bint has_backward

    def __cinit__(self, Graph graph, list inputs, list outputs, bint backward=True, bint repeat=True, bint copy=True,
                  bint reference=False, bint winograd=True, recompute="cheap", Arena arena=None):
        cdef cnn_plan_options options
        memset(&options, 0, sizeof(options))
        options.backward = backward
        options.repeat = repeat
        options.reference = reference
        options.direct = not winograd
        options.recompute = RECOMPUTE[recompute]
        check(cnn_plan_create(graph.graph, &options, &self.plan))
        self.arena = Arena() if arena is None else arena
        self.me = ref(self)
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
        self.outputs = [Result(shape, self.numpy_dtype) for shape in self.output_shapes]
        self.gradients = [Result(shape, self.numpy_dtype) for shape in self.input_shapes]
        self.bound = []
        self.copy = copy
        self.has_backward = backward

    def __dealloc__(self):
        cnn_plan_free(self.plan)

    cdef int claim(self) except -1:
        """Makes the arena this runner's, for as many threads as there are now."""
        cdef int32_t threads = cnn_get_num_threads()
        cdef Memory data, diff
        if self.arena.owner is self.me and self.threads == threads:
            return 0
        self.threads = 0  # if this fails, the next run tries again
        self.arena.pass_on(self.me, cnn_plan_context_bytes(self.plan))
        check(cnn_context_create_in(self.plan, self.arena.memory, self.arena.bytes, &self.context))
        for value, data, diff in self.bound:
            check(cnn_context_bind(self.context, value, data.data, NULL if diff is None else diff.data))
        self.threads = threads
        return 0

    cdef void forget(self):
        """The arena is another's: there is nothing to go back from, and no reason to keep memory for arrays."""
        cdef Border border
        cdef Result result
        self.ran = False
        for border in self.borders:
            border.forget()
        for border in self.diff_borders:
            border.forget()
        for result in self.outputs:
            result.forget()
        for result in self.gradients:
            result.forget()

    @property
    def bytes(self):
        """Bytes of the arena that it needs, for activations, saved tensors, gradients and workspace."""
        return cnn_plan_context_bytes(self.plan)

    def bytes_by_kind(self):
        """What the plan says of these."""
        return {"activations": cnn_plan_bytes(self.plan, CNN_MEMORY_ACTIVATIONS),
                "gradients": cnn_plan_bytes(self.plan, CNN_MEMORY_GRADIENTS),
                "workspace": cnn_plan_bytes(self.plan, CNN_MEMORY_WORKSPACE)}

    def bind(self, cnn_value value, data, diff=None):
        """Names the memory of a parameter (with its gradient) or a state; the arrays are held."""
        cdef Memory data_memory = Memory(data, data.dtype)
        cdef Memory diff_memory = None if diff is None else Memory(diff, diff.dtype)
        self.bound.append((value, data_memory, diff_memory))

    def forward(self, tuple arrays, uint64_t seed=0, uint64_t call=0):
        """Runs forward on one array per input and returns a list of new arrays, one per output."""
        with self.arena.lock:
            return self.run_forward(arrays, seed, call)

    cdef list run_forward(self, tuple arrays, uint64_t seed, uint64_t call):
        cdef cnn_status status
        results = self.bring_in(arrays, seed, call)
        with nogil:
            status = cnn_context_forward(self.context)
        check(status)
        # Outputs that backward reads are kept inside; nothing of the caller's is referred to any more but the inputs.
        self.ran = True
        return results

    cdef list bring_in(self, tuple arrays, uint64_t seed, uint64_t call):
        """Binds inputs and fresh outputs; returns these."""
        cdef Border border
        cdef Result output
        cdef cnn_dtype dtype
        if len(arrays) != len(self.names):
            raise TypeError(f"forward: got {len(arrays)} arguments, expected {len(self.names)}")
        self.ran = False  # until this run has succeeded there is nothing to go back from
        self.claim()
        for i in range(len(arrays)):
            border = self.borders[i]
            dtype = dtype_code(self.input_dtypes[i])
            border.take(arrays[i], self.names[i], dtype, self.input_shapes[i], True, self.copy)
            check(cnn_context_bind(self.context, self.input_values[i], border.data, NULL))
        results = []
        for i in range(len(self.output_values)):
            output = self.outputs[i]
            results.append(output.make())
            check(cnn_context_bind(self.context, self.output_values[i], output.data, NULL))
        check(cnn_context_random(self.context, seed, call))
        return results

    def train(self, tuple arrays, Training training not None, uint64_t seed=0, uint64_t call=0, double share=1.0,
              bint accumulate=False, bint postpone=False):
        """Forward, backward and, unless `postpone`, the update, in one call into the engine.

        The first output is the loss, of which `share` is what counts; other outputs are watched. Returns (the outputs,
        the penalty, the norm of all gradients, or 0 without clipping)."""
        with self.arena.lock:
            return self.run_train(arrays, training, seed, call, share, accumulate, postpone)

    cdef tuple run_train(self, tuple arrays, Training training, uint64_t seed, uint64_t call, double share,
                         bint accumulate, bint postpone):
        cdef Border border
        cdef Result output
        cdef cnn_status status
        cdef float share32 = <float>share
        cdef double penalty, norm
        cdef cnn_training step = training.c
        if step.dtype != self.dtype:
            raise TypeError(f"training: got parameters of {dtype_name(step.dtype)}, expected {dtype_name(self.dtype)}")
        step.accumulate = accumulate
        step.postpone = postpone
        results = self.bring_in(arrays, seed, call)
        output = self.outputs[0]
        check(cnn_context_bind(self.context, self.output_values[0], output.data,
                               <void *>&share32 if self.dtype == CNN_FLOAT32 else <void *>&share))
        with nogil:
            status = cnn_context_train(self.context, &step, &penalty, &norm)
        for border in self.borders:
            border.drop()
        check(status)
        return results, penalty, norm

    def backward(self, tuple arrays, bint want_inputs=True):
        """Runs backward from one gradient per output (None: zero); parameters' gradients accumulate. Returns a list of
        new arrays, one per input, None for those without a gradient, or None altogether unless `want_inputs`."""
        with self.arena.lock:
            return self.run_backward(arrays, want_inputs)

    cdef list run_backward(self, tuple arrays, bint want_inputs):
        cdef Border border
        cdef Result output, gradient
        cdef cnn_status status
        if not self.ran:
            raise RuntimeError("backward: call forward first")
        if len(arrays) != len(self.output_values):
            raise TypeError(f"backward: got {len(arrays)} gradients, expected {len(self.output_values)}")
        for i in range(len(arrays)):
            border = self.diff_borders[i]
            output = self.outputs[i]
            array = arrays[i]
            if array is None and len(arrays) > 1:
                array = zeros(self.output_shapes[i], self.numpy_dtype)
            name = "dy" if len(arrays) == 1 else f"dy[{i}]"
            border.take(array, name, self.dtype, self.output_shapes[i], True, False)
            check(cnn_context_bind(self.context, self.output_values[i], output.data, border.data))
        results = []
        for i in range(len(self.input_values)):
            border = self.borders[i]
            if not want_inputs or self.input_dtypes[i] == "int64":
                results.append(None)
                check(cnn_context_bind(self.context, self.input_values[i], border.data, NULL))
                continue
            gradient = self.gradients[i]
            results.append(gradient.make())
            check(cnn_context_bind(self.context, self.input_values[i], border.data, gradient.data))
        with nogil:
            status = cnn_context_backward(self.context)
        for border in self.diff_borders:
            border.drop()
        check(status)
        return results if want_inputs else None
