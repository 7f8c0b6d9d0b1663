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


cdef cnn_plan_options plan_options(bint winograd, int32_t threads, bint reference, bint final):
    cdef cnn_plan_options options
    memset(&options, 0, sizeof(options))
    options.reference = reference
    options.direct = not winograd
    options.threads = threads
    options.final = final
    return options


cdef class FrozenPlan:
    """A plan for inference with constants of its own; runs may overlap. Made by `freeze` or `load`.

    names, input_values, input_shapes and input_dtypes are of each input, output_values and output_shapes of each output."""

    cdef cnn_plan *plan
    cdef readonly list names, input_values, input_shapes, input_dtypes, output_values, output_shapes
    cdef readonly str dtype, description
    cdef object numpy_dtype
    cdef list idle

    @staticmethod
    def freeze(Graph graph, list constants, bint winograd=True, int32_t threads=0, bint reference=False,
               bint final=False):
        """A plan of the graph; `constants` is [(value, array)]."""
        cdef FrozenPlan made = FrozenPlan.__new__(FrozenPlan)
        cdef cnn_plan_options options = plan_options(winograd, threads, reference, final)
        cdef cnn_status status
        cdef Memory memory
        cdef const void **data
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
                status = cnn_plan_freeze(graph.graph, &options, data, &made.plan)
        finally:
            free(data)
        check(status)
        made.ask()
        return made

    @staticmethod
    def load(bytes content not None, bint winograd=True, int32_t threads=0, bint final=False):
        """The plan that a model file holds; `content` is the file's."""
        cdef FrozenPlan made = FrozenPlan.__new__(FrozenPlan)
        cdef cnn_plan_options options = plan_options(winograd, threads, False, final)
        cdef const char *memory = PyBytes_AsString(content)
        cdef size_t size = len(content)
        cdef cnn_status status
        with nogil:
            status = cnn_plan_load_memory(memory, size, &options, &made.plan)
        check(status)
        made.ask()
        return made

    def save(self):
        """The content of a model file."""
        cdef size_t size = 0
        cdef cnn_status status
        cdef char *memory
        check(cnn_plan_save_memory(self.plan, NULL, &size))
        content = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
        memory = PyBytes_AsString(content)
        with nogil:
            status = cnn_plan_save_memory(self.plan, memory, &size)
        check(status)
        return content

    cdef int ask(self) except -1:
        """Learns from the plan what Python needs to know of it."""
        cdef cnn_shape shape
        cdef cnn_dtype dtype
        cdef int32_t i
        self.input_values = [cnn_plan_input(self.plan, i) for i in range(cnn_plan_num_inputs(self.plan))]
        self.output_values = [cnn_plan_output(self.plan, i) for i in range(cnn_plan_num_outputs(self.plan))]
        self.names, self.input_shapes, self.input_dtypes, self.output_shapes = [], [], [], []
        for value in self.input_values:
            check(cnn_plan_shape(self.plan, value, &shape))
            check(cnn_plan_dtype(self.plan, value, &dtype))
            self.names.append(cnn_plan_name(self.plan, value).decode() or f"input {len(self.names)}")
            self.input_shapes.append(shape_tuple(&shape))
            self.input_dtypes.append(dtype_name(dtype))
        for value in self.output_values:
            check(cnn_plan_shape(self.plan, value, &shape))
            check(cnn_plan_dtype(self.plan, value, &dtype))
            self.output_shapes.append(shape_tuple(&shape))
        self.dtype = dtype_name(dtype)  # results are all of the working type, and there is at least one
        self.numpy_dtype = float32 if dtype == CNN_FLOAT32 else float64
        self.description = cnn_plan_description(self.plan).decode()
        self.idle = []
        return 0

    def __dealloc__(self):
        cnn_plan_free(self.plan)

    def bytes(self):
        """Bytes by kind; those of `constants` and most of `tables` are there once, the others for each run at the same
        time. `arrays` is what a FrozenContext holds of arrays when inputs had to be converted."""
        staged = sum([prod(shape) * (4 if dtype == "float32" else 8)
                      for shape, dtype in zip(self.input_shapes, self.input_dtypes, strict=True)])
        results = [prod(shape) * (4 if self.numpy_dtype is float32 else 8) for shape in self.output_shapes]
        return {"constants": cnn_plan_bytes(self.plan, CNN_MEMORY_CONSTANTS),
                "activations": cnn_plan_bytes(self.plan, CNN_MEMORY_ACTIVATIONS),
                "workspace": cnn_plan_bytes(self.plan, CNN_MEMORY_WORKSPACE),
                "tables": cnn_plan_bytes(self.plan, CNN_MEMORY_TABLES),
                "arrays": staged + sum([2 * size for size in results if size >= WORTH_KEEPING])}

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
