/* Every kernel body, for one ISA. A stub in isa/ includes a vector vocabulary from simd/, defines CNN_ISA (the suffix of
 * the names) and includes this file: the bodies are written once and compiled once per ISA. All functions here are static;
 * the table is the only symbol. */
#include "cpu/kernels.h"

#define CNN_PASTE_(a, b) a##b
#define CNN_PASTE(a, b) CNN_PASTE_(a, b)
#define CNN_STRING_(a) #a
#define CNN_STRING(a) CNN_STRING_(a)

#include "simd/math.h"

#include "ukernels/activation_body.h"
#include "ukernels/conv_body.h"
#include "ukernels/depthwise_body.h"
#include "ukernels/depthwise_rows_body.h"
#include "ukernels/elementwise_body.h"
#include "ukernels/loss_body.h"
#include "ukernels/norm_body.h"
#include "ukernels/pool_body.h"
#include "ukernels/probe_body.h"
#include "ukernels/softmax_body.h"
#include "ukernels/update_body.h"
#include "ukernels/winograd_axis_body.h"
#include "ukernels/winograd_body.h"
#include "ukernels/winograd_product_body.h"

const cnn_kernels CNN_PASTE(cnn_kernels_, CNN_ISA) = {
    .isa = CNN_STRING(CNN_ISA),
    .width = VF_WIDTH,
    .panels = TILE_WIDEST / 2,
    .conv = CNN_KERNELS_CONV,
    .depthwise = CNN_KERNELS_DEPTHWISE,
    .depthwise_rows = CNN_KERNELS_DEPTHWISE_ROWS,
    .winograd = CNN_KERNELS_WINOGRAD,
    .norm = CNN_KERNELS_NORM,
    .activation = CNN_KERNELS_ACTIVATION,
    .softmax = CNN_KERNELS_SOFTMAX,
    .pool = CNN_KERNELS_POOL,
    .elementwise = CNN_KERNELS_ELEMENTWISE,
    .loss = CNN_KERNELS_LOSS,
    .update = CNN_KERNELS_UPDATE,
    .probe = CNN_KERNELS_PROBE,
};
