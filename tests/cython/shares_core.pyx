# cython: language_level=3
"""A Cython module that calls the running core through pycnn.cnn_core, without the GIL."""
from pycnn cimport cnn_core as cnn

cnn.import_cnn_core()


def uniform(float[::1] dst, double low, double high):
    """dst = uniform numbers in [low, high), by threads that are cut in C."""
    cdef cnn.cnn_status status
    with nogil:
        status = cnn.cnn_fill_uniform(cnn.CNN_FLOAT32, dst.shape[0], &dst[0], low, high, 7, 0)
    if status != cnn.CNN_OK:
        raise ValueError(cnn.cnn_last_error().decode())


def set_num_threads(int number):
    if cnn.cnn_set_num_threads(number) != cnn.CNN_OK:
        raise ValueError(cnn.cnn_last_error().decode())
