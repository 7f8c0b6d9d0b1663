/* The kernel table: what differs between ISAs. Each family's functions are declared beside their bodies in ukernels/. */
#ifndef CNN_CPU_KERNELS_H
#define CNN_CPU_KERNELS_H

#include "cnn_core.h"
#include "ukernels/activation.h"
#include "ukernels/conv.h"
#include "ukernels/depthwise.h"
#include "ukernels/depthwise_rows.h"
#include "ukernels/elementwise.h"
#include "ukernels/loss.h"
#include "ukernels/norm.h"
#include "ukernels/pool.h"
#include "ukernels/probe.h"
#include "ukernels/softmax.h"
#include "ukernels/update.h"
#include "ukernels/winograd.h"

typedef struct cnn_kernels {
    const char *isa;
    int width;  /* floats in a vector */
    int panels; /* of two vectors, of a register tile of products: 2 with 32 registers, else 1 */
    struct cnn_conv_kernels conv;
    struct cnn_depthwise_kernels depthwise;
    struct cnn_depthwise_rows_kernels depthwise_rows;
    struct cnn_winograd_kernels winograd;
    struct cnn_norm_kernels norm;
    struct cnn_activation_kernels activation;
    struct cnn_softmax_kernels softmax;
    struct cnn_pool_kernels pool;
    struct cnn_elementwise_kernels elementwise;
    struct cnn_loss_kernels loss;
    struct cnn_update_kernels update;
    struct cnn_probe_kernels probe;
} cnn_kernels;

/* The table for this CPU; NULL, with a message, when CNN_FORCE_ISA asks for what is not there. */
const cnn_kernels *cnn_kernels_get(void);

/* Bytes of a core's second-level cache, or of a common one where the CPU does not tell. Only how work is cut may depend on it, no
 * result. */
size_t cnn_core_cache(void);

/* One for each stub in isa/. The build defines CNN_HAVE_ for those that it compiles: all of its architecture. */
extern const cnn_kernels cnn_kernels_scalar;
extern const cnn_kernels cnn_kernels_sse2;
extern const cnn_kernels cnn_kernels_avx2;
extern const cnn_kernels cnn_kernels_avx512;
extern const cnn_kernels cnn_kernels_neon;

#endif
