# Plans with constant parameters: one plan, packed once, and as many contexts as run at the same time.

cdef class FrozenContext:
    """The memory of one run of a FrozenPlan."""

    cdef cnn_context *context
    cdef list borders, outputs  # Results

    def __cinit__(self, FrozenPlan plan):
        check(cnn_context_create(plan.plan, &self.context))
        self.borders = [Border() for _ in plan.input_values]
        self.outputs = [Result(shape, plan.numpy_dtype) for shape in plan.output_shapes]

    def __dealloc__(self):
        cnn_context_free(self.context)

    cdef list run(self, FrozenPlan plan, tuple arrays):
        cdef Border border
        cdef Result output
        cdef cnn_status status
        results = []
        try:
            for i in range(len(arrays)):
                border = self.borders[i]
                border.take(arrays[i], plan.names[i], dtype_code(plan.input_dtypes[i]), plan.input_shapes[i], True, False)
                check(cnn_context_bind(self.context, plan.input_values[i], border.data, NULL))
            for i in range(len(self.outputs)):
                output = self.outputs[i]
                results.append(output.make())
                check(cnn_context_bind(self.context, plan.output_values[i], output.data, NULL))
            with nogil:
                status = cnn_context_forward(self.context)
            check(status)
        finally:
            for border in self.borders:
                border.drop()
        return results


cdef class FrozenPlan:
    """A graph with constant parameters, planned for inference; `constants` is [(value, array)]. Runs may overlap."""

    cdef cnn_plan *plan
    cdef readonly list names, input_values, input_shapes, input_dtypes, output_values, output_shapes
    cdef object numpy_dtype
    cdef list idle

    def __cinit__(self, Graph graph, list inputs, list outputs, list constants, bint winograd=True, int32_t threads=0,
                  bint reference=False):
        cdef cnn_plan_options options
        cdef cnn_status status
        cdef Memory memory
        cdef const void **data
        memset(&options, 0, sizeof(options))
        options.reference = reference
        options.direct = not winograd
        options.threads = threads
        held = []
        data = <const void **>calloc(cnn_graph_num_values(graph.graph) + 1, sizeof(void *))
        if data == NULL:
            raise MemoryError("no memory for a plan")
        try:
            for value, array in constants:
                memory = Memory(array, array.dtype)
                held.append(memory)
                data[<cnn_value>value] = memory.data
            with nogil:
                status = cnn_plan_freeze(graph.graph, &options, data, &self.plan)
        finally:
            free(data)
        check(status)
        self.numpy_dtype = float32 if graph.dtype == "float32" else float64
        self.names = [name for name, _, _ in inputs]
        self.input_values = [value for _, value, _ in inputs]
        self.input_dtypes = [dtype for _, _, dtype in inputs]
        self.input_shapes = [graph.shape(value) for value in self.input_values]
        self.output_values = outputs
        self.output_shapes = [graph.shape(value) for value in outputs]
        self.idle = []

    def __dealloc__(self):
        cnn_plan_free(self.plan)

    def bytes(self):
        """Bytes by kind; those of `constants` are there once, the others for each run at the same time."""
        return {"constants": cnn_plan_bytes(self.plan, CNN_MEMORY_CONSTANTS),
                "activations": cnn_plan_bytes(self.plan, CNN_MEMORY_ACTIVATIONS),
                "workspace": cnn_plan_bytes(self.plan, CNN_MEMORY_WORKSPACE)}

    def run(self, tuple arrays):
        """Runs on one array per input and returns a list of new arrays, one per output."""
        cdef FrozenContext context
        if len(arrays) != len(self.names):
            raise TypeError(f"plan: got {len(arrays)} inputs, expected {len(self.names)}")
        try:
            context = self.idle.pop()
        except IndexError:
            context = FrozenContext(self)
        try:
            return context.run(self, arrays)
        finally:
            self.idle.append(context)
