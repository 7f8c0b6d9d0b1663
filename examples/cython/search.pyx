# cython: language_level=3, boundscheck=False, wraparound=False
"""Looks for digits in a larger picture: a window slides over it, and no step of that loop needs Python."""
from pycnn cimport cnn_core as cnn

import numpy as np

cnn.import_cnn_core()

cdef enum:
    SIZE = 28
    CLASSES = 10


cdef int check(cnn.cnn_status status) except -1:
    if status != cnn.CNN_OK:
        raise ValueError(cnn.cnn_last_error().decode())
    return 0


def search(str model, float[:, ::1] picture, int step=4):
    """The network's scores, float32 (rows, columns, 10), for a window of 28x28 pixels at every `step`-th place of `picture`."""
    cdef int rows = (<int>picture.shape[0] - SIZE) // step + 1
    cdef int columns = (<int>picture.shape[1] - SIZE) // step + 1
    if rows < 1 or columns < 1:
        raise ValueError(f"picture: got {tuple(picture.base.shape)}, expected at least ({SIZE}, {SIZE})")
    scores = np.empty((rows, columns, CLASSES), np.float32)
    cdef float[:, :, ::1] out = scores
    cdef float[SIZE * SIZE] window
    cdef cnn.cnn_plan *plan = NULL
    cdef cnn.cnn_context *context = NULL
    cdef cnn.cnn_status status = cnn.CNN_OK
    cdef int row, column, y, x
    try:
        check(cnn.cnn_plan_load(model.encode(), NULL, &plan))
        check(cnn.cnn_context_create(plan, &context))
        check(cnn.cnn_context_bind(context, cnn.cnn_plan_input(plan, 0), window, NULL))
        with nogil:
            for row in range(rows):
                for column in range(columns):
                    for y in range(SIZE):
                        for x in range(SIZE):
                            window[y * SIZE + x] = picture[row * step + y, column * step + x]
                    status = cnn.cnn_context_bind(context, cnn.cnn_plan_output(plan, 0), &out[row, column, 0], NULL)
                    if status == cnn.CNN_OK:
                        status = cnn.cnn_context_forward(context)
                    if status != cnn.CNN_OK:
                        break
                if status != cnn.CNN_OK:
                    break
        check(status)
    finally:
        cnn.cnn_context_free(context)
        cnn.cnn_plan_free(plan)
    return scores
