/* Convolution and transposed convolution: what they accept, and which algorithm computes a pass. */
#include "ops/conv.h"
#include "ops/check.h"
#include "ops/conv_geometry.h"
#include "ops/epilogue.h"
#include "ref/ref.h"

/* ---- algorithms -------------------------------------------------------------------------------------------------- */

/* Best first; the last two suit everything. */
static const cnn_conv_algorithm *const algorithms[] = {&cnn_conv_depthwise_rows, &cnn_conv_depthwise,
                                                     &cnn_conv_winograd_shares, &cnn_conv_winograd, &cnn_conv_outer,
                                                     &cnn_conv_direct};

static const cnn_conv_algorithm *choose(const cnn_conv *conv, cnn_conv_pass pass)
{
    const size_t count = sizeof algorithms / sizeof *algorithms;
    for (size_t i = 0; i < count; i++)
        if ((pass != CNN_CONV_BACKWARD || algorithms[i]->joins) && algorithms[i]->suits(conv, pass)) return algorithms[i];
    return NULL; /* of backward */
}

bool cnn_conv_joins(const cnn_conv *conv) { return choose(conv, CNN_CONV_BACKWARD) != NULL; }

size_t cnn_conv_workspace(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels, int32_t threads)
{
    return choose(conv, pass)->workspace(conv, pass, kernels, threads);
}

void cnn_conv_run(const cnn_conv_call *call) { choose(call->conv, call->pass)->run(call); }

size_t cnn_conv_packed(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    const cnn_conv_algorithm *algorithm = choose(conv, pass);
    return algorithm->packed == NULL ? 0 : algorithm->packed(conv, pass, kernels);
}

void cnn_conv_pack(const cnn_conv_call *call, void *packed) { choose(call->conv, call->pass)->pack(call, packed); }

bool cnn_conv_bands(const cnn_conv *conv)
{
    const cnn_conv_algorithm *algorithm = choose(conv, CNN_CONV_FORWARD);
    return algorithm->bands != NULL && algorithm->bands(conv);
}

int64_t cnn_conv_pieces(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    const cnn_conv_algorithm *algorithm = choose(conv, pass);
    return algorithm->pieces == NULL ? 0 : algorithm->pieces(conv, pass, kernels);
}

bool cnn_conv_prologues(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    const cnn_conv_algorithm *algorithm = choose(conv, pass);
    return algorithm->prologues != NULL && algorithm->prologues(conv, pass, kernels);
}

bool cnn_conv_reorders(const cnn_conv *conv, cnn_conv_pass pass)
{
    return choose(conv, pass)->reorders && cnn_conv_reads_all_taps(conv, pass);
}

bool cnn_conv_is_flat(const cnn_conv *conv)
{
    return conv->kh == 1 && conv->kw == 1 && conv->stride[0] == 1 && conv->stride[1] == 1 && conv->padding[0] == 0 &&
           conv->padding[1] == 0 && conv->ih == conv->oh && conv->iw == conv->ow;
}

void cnn_conv_flatten(cnn_conv *conv)
{
    if (!cnn_conv_is_flat(conv)) return;
    conv->iw = conv->ow = conv->n * conv->oh * conv->ow;
    conv->n = conv->ih = conv->oh = 1;
}

/* ---- shapes ------------------------------------------------------------------------------------------------------ */

/* The limit keeps every sum and product of sizes below inside 64 bits. */
static cnn_status check_sizes(const char *name, int32_t count, const int64_t *sizes, int64_t least)
{
    for (int32_t i = 0; i < count; i++)
        if (sizes[i] < least || sizes[i] > INT32_MAX)
            return cnn_fail(CNN_INVALID_VALUE, "%s: got %lld, expected %lld to %d", name, (long long)sizes[i],
                            (long long)least, (int)INT32_MAX);
    return CNN_OK;
}

/* What both directions ask of their sources and attributes; `rows` is what the first axis of weight counts. */
static cnn_status check_common(const cnn_node *node, const char *rows)
{
    const cnn_attributes *a = &node->attributes;
    const cnn_shape *input = &node->src_shape[0], *weight = &node->src_shape[1];
    char text[CNN_SHAPE_TEXT];
    CNN_TRY(cnn_check_image(node, 0, "x"));
    CNN_TRY(cnn_check_working_type(node, 1, "weight"));
    CNN_TRY(cnn_check_rank(node, 1, "weight", 4));
    CNN_TRY(cnn_check_working_type(node, 2, "bias"));
    CNN_TRY(check_sizes("stride", 2, a->conv.stride, 1));
    CNN_TRY(check_sizes("padding", 4, a->conv.padding, 0));
    CNN_TRY(check_sizes("dilation", 2, a->conv.dilation, 1));
    CNN_TRY(check_sizes("kernel_size", 2, weight->dim + 2, 1));
    if (weight->dim[0] < 1 || weight->dim[1] < 1)
        return cnn_fail(CNN_INVALID_VALUE, "weight: got shape %s, expected at least one channel on either side",
                        cnn_shape_text(weight, text));
    for (int32_t i = 1; i < 4; i++)
        if (input->dim[i] < 1 || input->dim[i] > INT32_MAX)
            return cnn_fail(CNN_INVALID_VALUE, "x: got shape %s, expected 1 to %d channels, rows and columns",
                            cnn_shape_text(input, text), (int)INT32_MAX);
    if (a->conv.groups < 1)
        return cnn_fail(CNN_INVALID_VALUE, "groups: got %lld, expected 1 or more", (long long)a->conv.groups);
    if (weight->dim[0] % a->conv.groups != 0)
        return cnn_fail(CNN_INVALID_VALUE, "groups: got %lld, expected a divisor of %s = %lld",
                        (long long)a->conv.groups, rows, (long long)weight->dim[0]);
    return CNN_OK;
}

static cnn_status check_in_channels(const cnn_node *node, int64_t expected)
{
    const cnn_shape *input = &node->src_shape[0], *weight = &node->src_shape[1];
    char input_text[CNN_SHAPE_TEXT], weight_text[CNN_SHAPE_TEXT];
    if (input->dim[1] == expected) return CNN_OK;
    return cnn_fail(CNN_INVALID_VALUE,
                    "in_channels: got %lld channels in x %s, expected %lld for weight %s and groups %lld",
                    (long long)input->dim[1], cnn_shape_text(input, input_text), (long long)expected,
                    cnn_shape_text(weight, weight_text), (long long)node->attributes.conv.groups);
}

static cnn_status infer_conv2d(cnn_node *node)
{
    CNN_TRY(check_common(node, "out_channels"));
    const cnn_attributes *a = &node->attributes;
    const cnn_shape *input = &node->src_shape[0], *weight = &node->src_shape[1];
    CNN_TRY(check_in_channels(node, weight->dim[1] * a->conv.groups));
    CNN_TRY(cnn_check_length(node, 2, "bias", weight->dim[0]));

    int64_t padded[2], extent[2];
    for (int i = 0; i < 2; i++) {
        padded[i] = input->dim[2 + i] + a->conv.padding[i] + a->conv.padding[2 + i];
        extent[i] = a->conv.dilation[i] * (weight->dim[2 + i] - 1) + 1;
    }
    if (extent[0] > padded[0] || extent[1] > padded[1])
        return cnn_fail(CNN_INVALID_VALUE,
                        "kernel_size: got (%lld, %lld), with dilation a window of (%lld, %lld), expected at most the "
                        "padded input's (%lld, %lld)",
                        (long long)weight->dim[2], (long long)weight->dim[3], (long long)extent[0],
                        (long long)extent[1], (long long)padded[0], (long long)padded[1]);
    node->dst_shape =
        (cnn_shape){.rank = 4,
                    .dim = {input->dim[0], weight->dim[0], (padded[0] - extent[0]) / a->conv.stride[0] + 1,
                            (padded[1] - extent[1]) / a->conv.stride[1] + 1}};
    return CNN_OK;
}

static cnn_status infer_conv_transpose2d(cnn_node *node)
{
    CNN_TRY(check_common(node, "in_channels"));
    const cnn_attributes *a = &node->attributes;
    const cnn_shape *input = &node->src_shape[0], *weight = &node->src_shape[1];
    CNN_TRY(check_in_channels(node, weight->dim[0]));
    const int64_t out_channels = weight->dim[1] * a->conv.groups;
    CNN_TRY(cnn_check_length(node, 2, "bias", out_channels));
    CNN_TRY(check_sizes("output_padding", 2, a->conv.output_padding, 0));

    int64_t size[2];
    for (int i = 0; i < 2; i++) {
        const int64_t limit = cnn_max_i64(a->conv.stride[i], a->conv.dilation[i]);
        if (a->conv.output_padding[i] >= limit)
            return cnn_fail(CNN_INVALID_VALUE,
                            "output_padding: got %lld, expected less than the larger of stride %lld "
                            "and dilation %lld",
                            (long long)a->conv.output_padding[i], (long long)a->conv.stride[i],
                            (long long)a->conv.dilation[i]);
        size[i] = (input->dim[2 + i] - 1) * a->conv.stride[i] + a->conv.dilation[i] * (weight->dim[2 + i] - 1) + 1 +
                  a->conv.output_padding[i] - a->conv.padding[i] - a->conv.padding[2 + i];
    }
    if (size[0] < 1 || size[1] < 1)
        return cnn_fail(CNN_INVALID_VALUE,
                        "padding: got (%lld, %lld, %lld, %lld), which leaves an output of (%lld, %lld), expected at "
                        "least one row and one column",
                        (long long)a->conv.padding[0], (long long)a->conv.padding[1], (long long)a->conv.padding[2],
                        (long long)a->conv.padding[3], (long long)size[0], (long long)size[1]);
    node->dst_shape = (cnn_shape){.rank = 4, .dim = {input->dim[0], out_channels, size[0], size[1]}};
    return CNN_OK;
}

/* ---- passes ------------------------------------------------------------------------------------------------------ */

static cnn_conv conv_between(const cnn_node *node, const cnn_shape *x_shape, const cnn_shape *y_shape)
{
    const cnn_attributes *a = &node->attributes;
    const cnn_image x = cnn_image_of(x_shape), y = cnn_image_of(y_shape);
    const cnn_shape *weights = &node->src_shape[1];
    cnn_conv conv = {
        .n = x.n,
        .groups = a->conv.groups,
        .ic = x.c,
        .ih = x.h,
        .iw = x.w,
        .oc = y.c,
        .oh = y.h,
        .ow = y.w,
        .kh = weights->dim[2],
        .kw = weights->dim[3],
        .stride = {a->conv.stride[0], a->conv.stride[1]},
        .dilation = {a->conv.dilation[0], a->conv.dilation[1]},
        .padding = {a->conv.padding[0], a->conv.padding[1]},
        .direct = node->direct,
        .packed = node->packed,
        .prologue = node->prologue,
        .back_prologue = node->back_prologue,
    };
    int64_t stride[CNN_MAX_RANK];
    cnn_shape_strides(weights, !node->row_major[1], stride);
    for (int i = 0; i < 4; i++) conv.weights_stride[i] = stride[i];
    cnn_conv_flatten(&conv);
    return conv;
}

/* Every algorithm takes any epilogue; backward knows of none. */
static bool fuses(const cnn_node *node, const cnn_epilogue *epilogue, bool backward)
{
    (void)node;
    return !backward || (!epilogue->adds && cnn_epilogue_by_result(epilogue));
}

/* The gradient that is there is the addend of backward data. Depthwise kernels may write a pixel more than once. */
static uint32_t can_add(const cnn_node *node)
{
    return node->attributes.conv.groups == 1 ? SRC(0) : 0;
}

/* The two operations differ in which end of the same map is their source. */
typedef struct direction {
    bool transposed;
    cnn_conv_pass forward, backward;
} direction;

static const direction plain = {false, CNN_CONV_FORWARD, CNN_CONV_BACKWARD_DATA};
static const direction transposed = {true, CNN_CONV_BACKWARD_DATA, CNN_CONV_FORWARD};

static cnn_conv conv_of(const cnn_node *node, const direction *d)
{
    const cnn_shape *src = &node->src_shape[0], *dst = &node->dst_shape;
    return d->transposed ? conv_between(node, dst, src) : conv_between(node, src, dst);
}

/* Whether both gradients are to come from one reading. */
static bool joins(const cnn_node *node, const cnn_conv *conv, const direction *d)
{
    return !d->transposed && node->wanted[0] && node->wanted[1] && cnn_conv_joins(conv);
}

static size_t workspace(const cnn_node *node, bool backward, int32_t threads, const direction *d)
{
    if (cnn_shape_count(&node->dst_shape) == 0) return 0;
    const cnn_conv conv = conv_of(node, d);
    if (!backward) return cnn_conv_workspace(&conv, d->forward, node->kernels, threads);
    size_t most = 0;
    if (node->wanted[0])
        most = cnn_conv_workspace(&conv, joins(node, &conv, d) ? CNN_CONV_BACKWARD : d->backward, node->kernels, threads);
    if (node->wanted[1]) {
        const size_t bytes = cnn_conv_workspace(&conv, CNN_CONV_BACKWARD_WEIGHTS, node->kernels, threads);
        if (bytes > most) most = bytes;
    }
    if (node->wanted[2]) {
        const cnn_image dst = cnn_image_of(&node->dst_shape);
        const size_t bytes = cnn_conv_bias_workspace(dst.n * dst.h * dst.w, dst.c);
        if (bytes > most) most = bytes;
    }
    return most;
}

static double work(const cnn_node *node, const direction *d)
{
    const cnn_conv conv = conv_of(node, d);
    return (double)conv.n * (double)conv.oh * (double)conv.ow * (double)conv.oc * (double)(conv.ic / conv.groups) *
           (double)(conv.kh * conv.kw);
}

static cnn_conv_call begin_call(const cnn_call *call, const cnn_conv *conv)
{
    return (cnn_conv_call){
        .conv = conv, .kernels = call->node->kernels, .threads = call->threads, .workspace = call->workspace};
}

static cnn_status forward(const cnn_call *call, const direction *d)
{
    const cnn_conv conv = conv_of(call->node, d);
    cnn_conv_call pass = begin_call(call, &conv);
    pass.pass = d->forward;
    *(d->transposed ? &pass.y : &pass.x) = call->src[0];
    pass.weights = call->src[1];
    pass.bias = call->src[2];
    if (call->node->prologue) pass.prologue = &call->prologue;
    pass.packed = call->packed;
    if (call->node->epilogue.adds) pass.addend = call->src[call->node->row->max_sources];
    if (call->node->epilogue.activates) pass.activation = &call->node->epilogue.activation;
    pass.out = call->dst;
    pass.watch = call->watch;
    cnn_conv_run(&pass);
    return CNN_OK;
}

/* scaled = weights, those of each channel of dst times its scale. They are (rows, cols / groups, kh, kw); channels of dst
 * count rows, or, transposed, cols. */
static bool rescale(const cnn_node *node, const void *weights, const double *scale, void *scaled, const direction *d)
{
    if (scaled == NULL) return true;
    const cnn_shape *shape = &node->src_shape[1];
    const int64_t cols = shape->dim[1], taps = shape->dim[2] * shape->dim[3];
    const int64_t group_rows = shape->dim[0] / node->attributes.conv.groups;
    for (int64_t i = 0; i < shape->dim[0] * cols * taps; i++) {
        const int64_t row = i / (cols * taps), col = i / taps % cols;
        const double factor = scale[d->transposed ? row / group_rows * cols + col : row];
        if (node->dtype == CNN_FLOAT64)
            ((double *)scaled)[i] = ((const double *)weights)[i] * factor;
        else
            ((float *)scaled)[i] = (float)((double)((const float *)weights)[i] * factor);
    }
    return true;
}

static size_t packed(const cnn_node *node, const direction *d)
{
    if (cnn_shape_count(&node->dst_shape) == 0) return 0;
    const cnn_conv conv = conv_of(node, d);
    return cnn_conv_packed(&conv, d->forward, node->kernels);
}

static void pack(const cnn_node *node, void *const *src, void *to, const direction *d)
{
    const cnn_conv conv = conv_of(node, d);
    const cnn_conv_call call = {.pass = d->forward,
                                .conv = &conv,
                                .kernels = node->kernels,
                                .threads = cnn_get_num_threads(),
                                .weights = src[1]};
    cnn_conv_pack(&call, to);
}

/* Every row must see a row of the image. */
static bool conv2d_band(const cnn_node *node, int64_t first, int64_t rows, cnn_node *part, int64_t *src_first,
                        int64_t *src_rows)
{
    const struct cnn_conv_attributes *a = &node->attributes.conv;
    const int64_t height = node->src_shape[0].dim[2], extent = a->dilation[0] * (node->src_shape[1].dim[2] - 1) + 1;
    const cnn_conv conv = conv_of(node, &plain);
    if (a->padding[0] >= extent || a->padding[2] >= extent || !cnn_conv_bands(&conv)) return false;
    const int64_t top = first * a->stride[0] - a->padding[0], end = top + (rows - 1) * a->stride[0] + extent;
    *src_first = cnn_max_i64(top, 0);
    *src_rows = cnn_min_i64(end, height) - *src_first;
    if (part == NULL) return true;
    *part = *node;
    part->src_shape[0].dim[0] = part->dst_shape.dim[0] = 1;
    part->src_shape[0].dim[2] = *src_rows;
    part->dst_shape.dim[2] = rows;
    part->attributes.conv.padding[0] = *src_first - top;
    return true;
}

static bool conv2d_takes_prologue(const cnn_node *node)
{
    const cnn_conv conv = conv_of(node, &plain);
    return cnn_conv_prologues(&conv, CNN_CONV_FORWARD, node->kernels) &&
           (!node->wanted[1] || cnn_conv_prologues(&conv, CNN_CONV_BACKWARD_WEIGHTS, node->kernels));
}

static int64_t pieces(const cnn_node *node, const direction *d)
{
    const cnn_conv conv = conv_of(node, d);
    return cnn_conv_pieces(&conv, d->forward, node->kernels);
}

/* What the watch reads besides is near only where it is read for the weights. */
static int64_t conv2d_back_pieces(const cnn_node *node)
{
    const cnn_conv conv = conv_of(node, &plain);
    return joins(node, &conv, &plain) ? cnn_conv_pieces(&conv, CNN_CONV_BACKWARD, node->kernels) : 0;
}

static bool reorders(const cnn_node *node, const direction *d)
{
    const cnn_conv conv = conv_of(node, d);
    return cnn_conv_reorders(&conv, d->forward);
}

static bool conv2d_takes_back_prologue(const cnn_node *node)
{
    const cnn_conv conv = conv_of(node, &plain);
    return joins(node, &conv, &plain) && !node->wanted[2] && !node->epilogue.activates;
}

static cnn_status backward(const cnn_call *call, const direction *d)
{
    const cnn_conv conv = conv_of(call->node, d);
    cnn_conv_call pass = begin_call(call, &conv);
    const bool made = call->node->back_prologue;
    const float *diff_dst = made ? call->back_prologue.diff_dst : cnn_epilogue_backward(call);
    if (made) pass.back_prologue = &call->back_prologue;
    pass.x = d->transposed ? diff_dst : call->src[0];
    pass.y = d->transposed ? call->src[0] : diff_dst;
    pass.weights = call->src[1];
    /* An input's gradient is wanted, but may have no memory. */
    const bool joint = call->diff_src[0] != NULL && joins(call->node, &conv, d);
    if (call->diff_src[0] != NULL) {
        pass.pass = joint ? CNN_CONV_BACKWARD : d->backward;
        pass.out = call->diff_src[0];
        pass.diff_weights = call->diff_src[1];
        if (joint && call->node->prologue) pass.prologue = &call->prologue;
        if (call->add & SRC(0)) pass.addend = pass.out;
        pass.watch = call->watch;
        cnn_conv_run(&pass);
        pass.watch = NULL;
        pass.addend = NULL;
    }
    if (call->diff_src[1] != NULL && !joint) {
        pass.pass = CNN_CONV_BACKWARD_WEIGHTS;
        if (call->node->prologue) pass.prologue = &call->prologue;
        pass.out = call->diff_src[1];
        cnn_conv_run(&pass);
    }
    if (call->diff_src[2] != NULL) {
        const cnn_image dst = cnn_image_of(&call->node->dst_shape);
        cnn_conv_bias_backward(call->node->kernels, call->threads, dst.n * dst.h * dst.w, dst.c, diff_dst,
                               call->workspace, call->diff_src[2]);
    }
    return CNN_OK;
}

static size_t conv2d_workspace(const cnn_node *node, bool back, int32_t threads)
{
    return workspace(node, back, threads, &plain);
}

static double conv2d_work(const cnn_node *node) { return work(node, &plain); }

static bool conv2d_rescale(const cnn_node *node, const void *weights, const double *scale, void *scaled)
{
    return rescale(node, weights, scale, scaled, &plain);
}

static size_t conv2d_packed(const cnn_node *node) { return packed(node, &plain); }

static void conv2d_pack(const cnn_node *node, void *const *src, void *to) { pack(node, src, to, &plain); }

static int64_t conv2d_pieces(const cnn_node *node) { return pieces(node, &plain); }

static bool conv2d_reorders(const cnn_node *node) { return reorders(node, &plain); }

static cnn_status conv2d_forward(const cnn_call *call) { return forward(call, &plain); }

static cnn_status conv2d_backward(const cnn_call *call) { return backward(call, &plain); }

static size_t conv_transpose2d_workspace(const cnn_node *node, bool back, int32_t threads)
{
    return workspace(node, back, threads, &transposed);
}

static double conv_transpose2d_work(const cnn_node *node) { return work(node, &transposed); }

static bool conv_transpose2d_rescale(const cnn_node *node, const void *weights, const double *scale, void *scaled)
{
    return rescale(node, weights, scale, scaled, &transposed);
}

static size_t conv_transpose2d_packed(const cnn_node *node) { return packed(node, &transposed); }

static void conv_transpose2d_pack(const cnn_node *node, void *const *src, void *to)
{
    pack(node, src, to, &transposed);
}

static int64_t conv_transpose2d_pieces(const cnn_node *node) { return pieces(node, &transposed); }

static bool conv_transpose2d_reorders(const cnn_node *node) { return reorders(node, &transposed); }

static cnn_status conv_transpose2d_forward(const cnn_call *call) { return forward(call, &transposed); }

static cnn_status conv_transpose2d_backward(const cnn_call *call) { return backward(call, &transposed); }

const cnn_op_row cnn_op_conv2d = {
    .name = "conv2d",
    .fields = cnn_fields_conv,
    .min_sources = 2,
    .max_sources = 3,
    .optional = SRC(2),
    .keeps_src = SRC(0) | SRC(1),
    .accumulates = SRC(1) | SRC(2),
    .can_add = can_add,
    .parameters = SRC(1) | SRC(2),
    .infer = infer_conv2d,
    .work = conv2d_work,
    .workspace = conv2d_workspace,
    .forward = conv2d_forward,
    .backward = conv2d_backward,
    .packs = SRC(1),
    .rescale = conv2d_rescale,
    .fuses = fuses,
    .packed = conv2d_packed,
    .pack = conv2d_pack,
    .band = conv2d_band,
    .reorders = conv2d_reorders,
    .pieces = conv2d_pieces,
    .back_pieces = conv2d_back_pieces,
    .takes_prologue = conv2d_takes_prologue,
    .takes_back_prologue = conv2d_takes_back_prologue,
    .reference_forward = cnn_ref_conv2d_forward,
    .reference_backward = cnn_ref_conv2d_backward,
};

const cnn_op_row cnn_op_conv_transpose2d = {
    .name = "conv_transpose2d",
    .fields = cnn_fields_conv,
    .min_sources = 2,
    .max_sources = 3,
    .optional = SRC(2),
    .keeps_src = SRC(0) | SRC(1),
    .accumulates = SRC(1) | SRC(2),
    .can_add = can_add,
    .parameters = SRC(1) | SRC(2),
    .infer = infer_conv_transpose2d,
    .work = conv_transpose2d_work,
    .workspace = conv_transpose2d_workspace,
    .forward = conv_transpose2d_forward,
    .backward = conv_transpose2d_backward,
    .packs = SRC(1),
    .rescale = conv_transpose2d_rescale,
    .fuses = fuses,
    .packed = conv_transpose2d_packed,
    .pack = conv_transpose2d_pack,
    .reorders = conv_transpose2d_reorders,
    .pieces = conv_transpose2d_pieces,
    .reference_forward = cnn_ref_conv_transpose2d_forward,
    .reference_backward = cnn_ref_conv_transpose2d_backward,
};
