/* The attributes of operations by name, for whoever writes and reads them as text. */
#ifndef CNN_OPS_FIELDS_H
#define CNN_OPS_FIELDS_H

#include "cnn_core.h"

typedef enum cnn_field_kind {
    CNN_FIELD_INT64,
    CNN_FIELD_INT32,
    CNN_FIELD_BOOLEAN, /* int32_t */
    CNN_FIELD_DOUBLE,
    CNN_FIELD_NAME,    /* an enum whose numbers have names */
    CNN_FIELD_SHAPE,   /* cnn_shape */
    CNN_FIELD_AXES     /* int64_t[CNN_MAX_RANK], of which as many count as source 0 has dimensions */
} cnn_field_kind;

typedef struct cnn_field {
    const char *name;         /* NULL ends a list */
    cnn_field_kind kind;
    size_t offset;            /* in cnn_attributes */
    int32_t count;            /* elements of an array, else 1 */
    const char *const *names; /* CNN_FIELD_NAME: by number, ending with NULL */
} cnn_field;

/* Of the members of cnn_attributes. */
extern const cnn_field cnn_fields_conv[], cnn_fields_norm[], cnn_fields_activation[], cnn_fields_axis[], cnn_fields_pool[];
extern const cnn_field cnn_fields_resize[], cnn_fields_dropout[], cnn_fields_reshape[], cnn_fields_affine[];
extern const cnn_field cnn_fields_slice[], cnn_fields_loss[];

#endif
