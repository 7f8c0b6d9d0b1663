# Foreign memory: where arrays come in, and arrays that the engine works on in place.

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

    cdef void forget(self):
        """Gives back the memory that it kept, too."""
        self.drop()
        if self.has_staging:
            PyBuffer_Release(&self.staged)
            self.has_staging = False
            self.staging = None

    cdef int take(self, array, str name, cnn_dtype dtype, tuple shape, bint channels_last, bint copy) except -1:
        """Sets self.data to dense memory with the array's elements, in the engine's layout. Errors name `name`."""
        cdef cnn_view view
        self.drop()
        acquire(array, name, dtype, &self.buffer)
        self.held = True
        describe(&self.buffer, array, name, dtype, &view)
        if not same_shape(&view.shape, shape):
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


cdef bint same_shape(const cnn_shape *shape, tuple wanted):
    if shape.rank != len(wanted):
        return False
    for i in range(shape.rank):
        if shape.dim[i] != <int64_t>wanted[i]:
            return False
    return True


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
    cdef const char *text = b"B"
    cdef const char *code
    cdef char order = c"@"
    cdef bint integer = dtype == CNN_INT64
    cdef const char *wanted = b"d"
    if buffer.format != NULL:
        text = buffer.format
    code = text
    if integer:
        wanted = b"bhilqnBHILQN"
    elif dtype == CNN_FLOAT32:
        wanted = b"f"
    if code[0] != 0 and strchr(b"<>=@!", code[0]) != NULL:
        order = code[0]
        code += 1
    if code[0] == 0 or code[1] != 0 or strchr(wanted, code[0]) == NULL:
        got = getattr(array, "dtype", text.decode("ascii", "replace"))
        raise TypeError(f"{name}: got dtype {got}, expected {'an integer dtype' if integer else dtype_name(dtype)}")
    if buffer.ndim > CNN_MAX_RANK:
        raise ValueError(f"{name}: got {buffer.ndim} dimensions, expected at most {CNN_MAX_RANK}")
    memset(view, 0, sizeof(cnn_view))
    view.data = buffer.buf
    view.itemsize = <int32_t>buffer.itemsize
    view.kind = (c"i" if strchr(b"bhilqn", code[0]) != NULL else c"u") if integer else c"f"
    if buffer.itemsize > 1 and strchr(b"<>!", order) != NULL:
        view.byteswapped = (order == c"<") != LITTLE_ENDIAN
    view.shape.rank = <int32_t>buffer.ndim
    for i in range(buffer.ndim):
        view.shape.dim[i] = buffer.shape[i]
        view.stride[i] = buffer.strides[i]
    return 0


cdef class Memory:
    """A NumPy array that the engine reads and writes in place: a parameter, its gradient, a statistic, a result. Without a
    dtype it is one that was made for it, and needs no check."""

    cdef Py_buffer buffer
    cdef bint held
    cdef void *data
    cdef int64_t length

    def __cinit__(self, array, dtype):
        if dtype is not None and (array.dtype != dtype or not array.flags.c_contiguous or not array.flags.writeable):
            raise ValueError(f"memory: got {array.dtype} array, expected a writable contiguous array of {dtype}")
        PyObject_GetBuffer(array, &self.buffer, PyBUF_STRIDED | PyBUF_WRITABLE)
        self.held = True
        self.data = self.buffer.buf
        self.length = self.buffer.len // self.buffer.itemsize

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.buffer)
