# cython: language_level=3, embedsignature=True, binding=False, auto_pickle=False
# Functions are built-in ones, and nothing here can be pickled: what Cython adds for more is a fifth of this module.
"""The binding of cnn_core: graphs, runs of them, and sweeps over parameters.

Everything here is thin. Foreign memory enters through one function, `Border.take`; every call into the engine that may
take long releases the GIL; every status that is not CNN_OK becomes an exception.
"""
from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_RECORDS_RO,
    PyBUF_STRIDED,
    PyBUF_WRITABLE,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strchr

import sys
from _thread import allocate_lock
from math import prod
from weakref import ref

from numpy import empty, float32, float64, frombuffer, zeros

from pycnn.errors import FormatError


cdef extern from "ops/probe.h" nogil:  # of the core, but not of its public interface
    double cnn_probe_multiply_adds()
    void cnn_probe_copy(int64_t n, const float *src, float *dst)


cdef extern from *:
    """
    #define CNN_API_POINTER(name) cnn_##name,
    static const cnn_api CNN_API_TABLE = {sizeof(cnn_api), CNN_ABI_VERSION, CNN_API_FUNCTIONS(CNN_API_POINTER)};
    """
    const cnn_api CNN_API_TABLE
    const char *CNN_API_CAPSULE


cdef bint LITTLE_ENDIAN = sys.byteorder == "little"


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
    if status == CNN_BAD_FILE:
        raise FormatError(message)
    if status == CNN_IO_ERROR:
        raise OSError(message)
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


include "_border.pxi"
include "_graph.pxi"
include "_results.pxi"
include "_segments.pxi"
include "_runner.pxi"
include "_frozen.pxi"


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


def run_multiply_adds():
    """Multiply-adds in registers on all threads, for a fraction of a millisecond; returns the number of operations."""
    cdef double operations
    with nogil:
        operations = cnn_probe_multiply_adds()
    return operations


def run_copy(src, dst):
    """dst = src, past the caches, on all threads: float32 arrays of one length, a multiple of 16, on cache lines."""
    cdef Memory source = Memory(src, float32)
    cdef Memory target = Memory(dst, float32)
    if source.length != target.length or source.length % 16 or <size_t>source.data % 64 or <size_t>target.data % 64:
        raise ValueError("src, dst: expected aligned arrays of one length, a multiple of 16")
    with nogil:
        cnn_probe_copy(source.length, <const float *>source.data, <float *>target.data)


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

# What import_cnn_core() of cnn_api.h finds: other extension modules call the core that runs here.
_C_API = PyCapsule_New(<void *>&CNN_API_TABLE, CNN_API_CAPSULE, NULL)
