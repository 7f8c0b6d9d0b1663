#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#if defined(_MSC_VER)
#define THREAD_LOCAL __declspec(thread)
#else
#define THREAD_LOCAL _Thread_local
#endif

#define MESSAGE_BYTES 512
static THREAD_LOCAL char message[MESSAGE_BYTES];

cnn_status cnn_fail(cnn_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return status;
}

cnn_status cnn_fail_in(const char *prefix, cnn_status status)
{
    char inner[MESSAGE_BYTES];
    memcpy(inner, message, sizeof inner);
    (void)snprintf(message, sizeof message, "%s: %.*s", prefix, MESSAGE_BYTES - 80, inner);
    return status;
}

const char *cnn_last_error(void)
{
    return message;
}

const char *cnn_shape_text(const cnn_shape *shape, char text[CNN_SHAPE_TEXT])
{
    size_t used = (size_t)snprintf(text, CNN_SHAPE_TEXT, "(");
    for (int32_t i = 0; i < shape->rank && used < CNN_SHAPE_TEXT; i++) {
        const char *separator = i + 1 < shape->rank ? ", " : (shape->rank == 1 ? "," : "");
        used += (size_t)snprintf(text + used, CNN_SHAPE_TEXT - used, "%lld%s", (long long)shape->dim[i], separator);
    }
    if (used < CNN_SHAPE_TEXT) (void)snprintf(text + used, CNN_SHAPE_TEXT - used, ")");
    return text;
}

const char *cnn_dtype_name(cnn_dtype dtype)
{
    static const char *const names[] = {"float32", "float64", "int64"};
    return names[dtype];
}
