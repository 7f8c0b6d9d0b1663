/* Failure: a status to return and a message for the calling thread. */
#ifndef CNN_BASE_STATUS_H
#define CNN_BASE_STATUS_H

#include "cnn_core.h"

#if defined(__GNUC__)
#define CNN_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define CNN_PRINTF(f, a)
#endif

/* Records the message and returns `status`, so that a check reads `return cnn_fail(CNN_INVALID_VALUE, "...")`. */
cnn_status cnn_fail(cnn_status status, const char *format, ...) CNN_PRINTF(2, 3);

/* Puts `prefix: ` before the message already recorded and returns `status`. */
cnn_status cnn_fail_in(const char *prefix, cnn_status status);

#define CNN_TRY(call)                                \
    do {                                             \
        const cnn_status cnn_try_status_ = (call);   \
        if (cnn_try_status_ != CNN_OK) return cnn_try_status_; \
    } while (0)

/* Writes "(2, 3, 4)" into text and returns it; for messages. */
#define CNN_SHAPE_TEXT 160
const char *cnn_shape_text(const cnn_shape *shape, char text[CNN_SHAPE_TEXT]);
const char *cnn_dtype_name(cnn_dtype dtype);

#endif
