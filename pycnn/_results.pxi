# The memory of results. Fresh pages cost more than most kernels, so results reuse memory that nobody holds any more.

cdef extern from "base/memory.h" nogil:  # of the core, but not of its public interface
    void *cnn_aligned_alloc(size_t bytes)
    void cnn_aligned_free(void *memory)


cdef class Pages:
    """Aligned memory that knows whether anybody holds it: an array over it, a view of such an array, a memoryview all hang
    on an export of its buffer, which Python releases with the last of them."""

    cdef void *data
    cdef Py_ssize_t bytes
    cdef Py_ssize_t exports

    def __cinit__(self, Py_ssize_t bytes):
        self.data = cnn_aligned_alloc(<size_t>bytes)
        if self.data == NULL:
            raise MemoryError(f"no memory for a result of {bytes} bytes")
        self.bytes = bytes

    def __dealloc__(self):
        cnn_aligned_free(self.data)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, self.bytes, False, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        self.exports -= 1


# Below this many bytes the allocator has warm memory at hand.
cdef Py_ssize_t WORTH_KEEPING = 65536


cdef bint counts_are_exact():
    """False where no interpreter lock keeps threads from counting exports at the same time."""
    locked = getattr(sys, "_is_gil_enabled", None)
    return locked is None or locked()


cdef class Result:
    """Makes the arrays of one result, call after call: fresh ones, or in the memory of an array made here of which nothing
    is left. Two are remembered, for callers that drop the last result only once they have the next."""

    cdef tuple shape
    cdef object dtype
    cdef Py_ssize_t bytes
    cdef bint keeps
    cdef list known      # Pages
    cdef object owner    # of the latest array's memory
    cdef void *data      # that memory

    def __cinit__(self, tuple shape, dtype):
        # In the engine's layout the channels of an image come last.
        self.shape = (shape[0], shape[2], shape[3], shape[1]) if len(shape) == 4 else shape
        self.dtype = dtype
        self.bytes = prod(shape) * (4 if dtype is float32 else 8)
        self.keeps = self.bytes >= WORTH_KEEPING and counts_are_exact()
        self.known = []

    cdef void forget(self):
        """Leaves its arrays to those who hold them."""
        self.known = []
        self.owner = None

    cdef Pages free_pages(self):
        cdef Pages pages
        for pages in self.known:
            if pages.exports == 0:
                return pages
        pages = Pages(self.bytes)
        if len(self.known) == 2:
            del self.known[0]
        self.known.append(pages)
        return pages

    cdef make(self):
        """An array of the logical shape; self.data is its memory, which self.owner keeps alive."""
        cdef Pages pages
        cdef Memory memory
        if self.keeps:
            pages = self.free_pages()
            array = frombuffer(pages, self.dtype).reshape(self.shape)
            self.owner = pages
            self.data = pages.data
        else:
            array = empty(self.shape, self.dtype)
            memory = Memory(array, None)
            self.owner = memory
            self.data = memory.data
        return array.transpose(0, 3, 1, 2) if len(self.shape) == 4 else array
