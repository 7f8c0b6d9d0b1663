/* Depthwise convolution with kernels 3 or 5 columns wide, row by row: the common ones.
 *
 * Forward and backward data: a task computes a band of rows, of one image and a strip of channels. For each row of dst
 * it lists the rows of src inside the image that it sees; stride, dilation, padding and phases of rows live in these
 * lists, those of columns in the kernel. Backward weights: a task sums over a share of all rows of y. */
#include "ops/conv.h"
#include "ops/conv_epilogue.h"
#include "ops/conv_geometry.h"
#include "ops/conv_tiling.h"
#include "ops/prologue.h"

#define MOST_TAPS 5 /* rows of a kernel */
#define LINE 16 /* channels of a cache line; every vector's width divides it */
#define STRIP_LINES 4
#define SEEN_BYTES (192 << 10) /* of a strip's src and dst, which somebody wants to see before they leave the cache */
#define MADE_BYTES (160 << 10) /* of rows of src that a prologue makes at a time: they stay in the second-level cache */
#define FROM_MEMORY (24 << 20) /* of all images: then no channels are left for later where some are read */
#define SOME_ROWS 2 /* with all their channels, so that memory is read straight through */
#define AHEAD 16 /* pixels by which rows are fetched ahead */
#define FAR_AHEAD 64 /* the same, from memory */
#define NEAR_BYTES (1 << 20) /* of all images: they are in a cache, and their rows are not fetched ahead */
#define WORK 1.3 /* times what cnn_conv_work counts: it knows the speed of products of matrices */
#define LEAST_BAND 8 /* rows; neighbouring bands read some rows of src twice */
#define LEAST_SHARE 256 /* pixels of y: clearing a share's sums and adding them up costs as much as some dozens */
#define MOST_SHARES 16

typedef struct rows_plan {
    cnn_conv_pass pass;
    int64_t channels, vectors, width;
    int64_t taps; /* of the kernel */
    int64_t strips, bands, band_rows; /* of an image; rows of the largest */
    int64_t shares;                   /* backward weights: of the rows of all images */
    int64_t ahead;                    /* pixels by which rows are fetched ahead */
    int64_t some_rows;                /* that are gone over for all channels, then the next */
    size_t axes_bytes, weights_bytes, sums_bytes, kernel_bytes;
    size_t row_bytes, made_bytes; /* of one thread */
} rows_plan;

static rows_plan plan_rows(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    rows_plan plan = {
        .pass = pass,
        .channels = conv->ic,
        .vectors = cnn_ceil_div(conv->ic, kernels->width),
        .width = kernels->width,
        .taps = conv->kh * conv->kw,
        .strips = cnn_max_i64(conv->ic / LINE / STRIP_LINES, 1),
        .axes_bytes = cnn_conv_axes_bytes(conv, pass),
    };
    const int64_t bytes = conv->n * (conv->ih * conv->iw + conv->oh * conv->ow) * conv->ic * (int64_t)sizeof(float);
    plan.ahead = bytes >= FROM_MEMORY ? FAR_AHEAD : bytes > NEAR_BYTES ? AHEAD : 0;
    plan.some_rows = cnn_max_i64(conv->ih, conv->oh);
    if (bytes >= FROM_MEMORY) {
        plan.strips = 1;
        plan.some_rows = SOME_ROWS;
    }
    if (conv->prologue && pass != CNN_CONV_BACKWARD_DATA) {
        const int64_t row_floats = conv->iw * conv->ic, step = conv->stride[0];
        const int64_t fitting = MADE_BYTES / (int64_t)sizeof(float) / row_floats;
        plan.strips = 1;
        plan.some_rows = fitting > conv->kh ? (fitting - conv->kh) / step + 1 : 1;
        plan.ahead = cnn_min_i64(plan.ahead, AHEAD);
        plan.made_bytes = cnn_float_bytes(((plan.some_rows - 1) * step + conv->kh) * row_floats);
    }
    const size_t weights = cnn_size_mul((size_t)(plan.vectors * plan.width), (size_t)plan.taps * sizeof(float));
    if (pass == CNN_CONV_BACKWARD_WEIGHTS) {
        const int64_t rows = conv->n * conv->oh;
        const int64_t wanted = cnn_min_i64(cnn_ceil_div(CNN_CONV_TASKS, plan.strips), MOST_SHARES);
        plan.shares = cnn_min_i64(cnn_min_i64(wanted, cnn_ceil_div(rows * conv->ow, LEAST_SHARE)), rows);
        plan.sums_bytes = cnn_size_align(cnn_size_mul(weights, (size_t)plan.shares));
        plan.kernel_bytes = cnn_size_align((size_t)conv->kh * sizeof(cnn_depthwise_tap));
    } else {
        const int64_t rows = pass == CNN_CONV_FORWARD ? conv->oh : conv->ih;
        const int64_t wanted = cnn_ceil_div(CNN_CONV_TASKS, conv->n * plan.strips);
        plan.bands = cnn_min_i64(wanted, cnn_ceil_div(rows, LEAST_BAND));
        plan.band_rows = cnn_ceil_div(rows, plan.bands);
        plan.row_bytes = cnn_size_align((size_t)plan.band_rows * sizeof(cnn_depthwise_row));
        plan.weights_bytes = cnn_size_align(weights);
    }
    return plan;
}

static size_t rows_packed(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    return plan_rows(conv, pass, kernels).weights_bytes;
}

static size_t rows_workspace(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels, int32_t threads)
{
    const rows_plan plan = plan_rows(conv, pass, kernels);
    const size_t shared = cnn_size_add(plan.axes_bytes, conv->packed ? 0 : plan.weights_bytes);
    const size_t scratch = cnn_size_mul(cnn_size_add(plan.row_bytes, plan.made_bytes), (size_t)threads);
    return cnn_size_add(cnn_size_add(shared, cnn_size_add(plan.sums_bytes, plan.kernel_bytes)), scratch);
}

typedef struct rows_job {
    const rows_plan *plan;
    const cnn_conv_call *call;
    cnn_conv_axes axes;
    const float *weights; /* [vectors][taps][width] */
    float *to_weights;    /* the same, while they are packed; NULL: they came packed */
    float *sums;          /* [shares][vectors][taps][width] */
    cnn_depthwise_tap *kernel;
    char *scratch;
} rows_job;

/* A thread's scratch memory: a band's rows and, in *made, what the prologue makes. */
static cnn_depthwise_row *take_scratch(const rows_job *job, int32_t thread, float **made)
{
    const rows_plan *plan = job->plan;
    char *cursor = job->scratch + (size_t)thread * (plan->row_bytes + plan->made_bytes);
    *made = cnn_take(&cursor, plan->made_bytes);
    return (cnn_depthwise_row *)(void *)cursor;
}

/* Channels begin .. end - 1. The last vector of the last strip is shifted back to be whole. */
typedef struct rows_strip {
    int64_t begin, end;
} rows_strip;

static rows_strip strip_at(const rows_plan *plan, int64_t strip)
{
    const int64_t lines = plan->channels / LINE;
    return (rows_strip){.begin = cnn_split(lines, plan->strips, strip) * LINE,
                        .end = strip + 1 == plan->strips ? plan->channels
                                                         : cnn_split(lines, plan->strips, strip + 1) * LINE};
}

/* ---- forward, backward data -------------------------------------------------------------------------------------- */

/* Backward data of stride 1 is forward with the kernel's columns turned around; of the rows the axes take care. */
static bool turns_columns(const cnn_conv *conv, cnn_conv_pass pass)
{
    return pass == CNN_CONV_BACKWARD_DATA && conv->stride[1] == 1;
}

/* Where row r of the kernel is packed: in backward data those of a phase lie side by side, in the order of their rows of
 * y, which is from the last to the first. */
static int64_t packed_row(const cnn_conv *conv, cnn_conv_pass pass, int64_t r)
{
    if (pass == CNN_CONV_FORWARD) return r;
    const int64_t step = conv->stride[0];
    int64_t before = 0;
    for (int64_t k = 0; k < conv->kh; k++) before += k % step < r % step || (k % step == r % step && k > r);
    return before;
}

static void pack_strip(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const rows_job *job = arg;
    const rows_plan *plan = job->plan;
    const cnn_conv *conv = job->call->conv;
    const rows_strip strip = strip_at(plan, task);
    const int64_t *stride = conv->weights_stride, width = plan->width;
    const bool turns = turns_columns(conv, plan->pass);
    for (int64_t from = strip.begin; from < strip.end; from += width) {
        float *to = job->to_weights + from * plan->taps;
        const float *weights = job->call->weights + cnn_min_i64(from, plan->channels - width) * stride[0];
        for (int64_t r = 0; r < conv->kh; r++) {
            float *row = to + packed_row(conv, plan->pass, r) * conv->kw * width;
            for (int64_t s = 0; s < conv->kw; s++, row += width) {
                const float *tap = weights + r * stride[2] + (turns ? conv->kw - 1 - s : s) * stride[3];
                for (int64_t lane = 0; lane < width; lane++) row[lane] = tap[lane * stride[0]];
            }
        }
    }
}

/* The rows of dst `first` .. `first` + rows - 1 of an image, and what each of them sees. */
static void list_rows(const rows_job *job, int64_t image, int64_t first, int64_t rows, cnn_depthwise_row *row)
{
    const cnn_conv_call *call = job->call;
    const cnn_conv *conv = call->conv;
    const cnn_conv_axis *axis = &job->axes.rows;
    const bool back = job->plan->pass == CNN_CONV_BACKWARD_DATA;
    const int64_t src_h = back ? conv->oh : conv->ih, dst_h = back ? conv->ih : conv->oh;
    const int64_t src_row = (back ? conv->ow : conv->iw) * conv->ic, dst_row = (back ? conv->iw : conv->ow) * conv->ic;
    const float *src = (back ? call->y : call->x) + image * src_h * src_row;
    for (int64_t d = first; d < first + rows; d++, row++) {
        const cnn_conv_phase *phase = &axis->phase[d % axis->dst_step];
        const int64_t i = d / axis->dst_step, at = (image * dst_h + d) * dst_row;
        int64_t begin = phase->first_tap, end = begin + phase->taps;
        while (begin < end && !cnn_conv_inside(&axis->tap[begin], i)) begin++;
        while (begin < end && !cnn_conv_inside(&axis->tap[end - 1], i)) end--;
        *row = (cnn_depthwise_row){
            .dst = call->out + at, .addend = call->addend == NULL ? NULL : call->addend + at, .taps = end - begin};
        if (begin == end) continue;
        const cnn_conv_tap *tap = &axis->tap[begin];
        row->src = src + (i * axis->src_step + tap->offset) * src_row;
        row->weights = job->weights + packed_row(conv, job->plan->pass, tap->k) * conv->kw * job->plan->width;
        if (end - begin > 1) row->src_step = (tap[1].offset - tap[0].offset) * src_row;
    }
}

/* What the kernel does not do itself: any activation that is no clamp, while the band is in the cache. */
static void activate_band(const cnn_conv_call *call, const cnn_depthwise_band *band)
{
    if (call->activation == NULL || band->clamps) return;
    const bool whole = band->channels == band->pitch;
    const int64_t pixels = whole ? 1 : band->dst_w, count = whole ? band->dst_w * band->pitch : band->channels;
    for (int64_t r = 0; r < band->rows; r++)
        for (int64_t p = 0; p < pixels; p++)
            cnn_conv_activate(call, count, band->row[r].dst + p * band->pitch + band->first);
}

/* Makes the rows of src that these rows see, and lets them see those. */
static void make_rows(const rows_job *job, int64_t rows, cnn_depthwise_row *row, float *made)
{
    const cnn_conv_call *call = job->call;
    const int64_t row_floats = call->conv->iw * call->conv->ic;
    const float *low = NULL, *last = NULL;
    for (int64_t r = 0; r < rows; r++) {
        if (row[r].taps == 0) continue;
        if (low == NULL) low = row[r].src; /* those of the rows below come later */
        last = row[r].src + (row[r].taps - 1) * row[r].src_step;
    }
    if (low == NULL) return;
    cnn_prologue_apply(call->prologue, call->kernels, ((last - low) / row_floats + 1) * call->conv->iw, low, made);
    for (int64_t r = 0; r < rows; r++)
        if (row[r].taps > 0) row[r].src = made + (row[r].src - low);
}

/* The band's rows, some at a time if somebody wants to see them while they are in the second-level cache. */
static void compute_band(const rows_job *job, cnn_depthwise_band *band, cnn_depthwise_row *row, float *made, cnn_sight *sight,
                         int32_t thread)
{
    const rows_plan *plan = job->plan;
    const cnn_conv_call *call = job->call;
    const bool back = plan->pass == CNN_CONV_BACKWARD_DATA;
    const int wide = call->conv->kw == 5, skips = !back && call->conv->stride[1] == 2;
    const struct cnn_depthwise_rows_kernels *kernels = &call->kernels->depthwise_rows;
    const int64_t rows = band->rows, row_bytes = (band->src_w + band->dst_w) * band->channels * (int64_t)sizeof(float);
    int64_t most = call->watch == NULL ? plan->some_rows : cnn_max_i64(SEEN_BYTES / row_bytes, 2);
    if (call->prologue != NULL) most = cnn_min_i64(most, plan->some_rows);
    for (int64_t first = 0; first < rows; first += band->rows) {
        band->rows = cnn_min_i64(most, rows - first);
        band->row = row + first;
        if (call->prologue != NULL) make_rows(job, band->rows, row + first, made);
        (back && !turns_columns(call->conv, plan->pass) ? kernels->spread[wide] : kernels->forward[wide][skips])(band);
        activate_band(call, band);
        if (call->watch == NULL) continue;
        sight->rows = band->rows * band->dst_w;
        call->watch->see(call->watch, sight, thread);
        sight->first += sight->rows;
        sight->done += sight->rows;
    }
}

static void run_band(void *arg, int64_t task, int32_t thread)
{
    const rows_job *job = arg;
    const rows_plan *plan = job->plan;
    const cnn_conv_call *call = job->call;
    const cnn_conv *conv = call->conv;
    const bool back = plan->pass == CNN_CONV_BACKWARD_DATA, turns = turns_columns(conv, plan->pass);
    const int64_t strip_index = task % plan->strips, index = task / plan->strips % plan->bands,
                  image = task / plan->strips / plan->bands;
    const int64_t dst_h = back ? conv->ih : conv->oh;
    const int64_t first = cnn_split(dst_h, plan->bands, index);
    const rows_strip strip = strip_at(plan, strip_index);
    const cnn_conv_epilogue epilogue = cnn_conv_epilogue_of(call);

    float *made;
    cnn_depthwise_row *rows = take_scratch(job, thread, &made);
    cnn_depthwise_band band = {
        .rows = cnn_split(dst_h, plan->bands, index + 1) - first,
        .src_w = back ? conv->ow : conv->iw,
        .dst_w = back ? conv->iw : conv->ow,
        .left = turns ? conv->kw - 1 - conv->padding[1] : conv->padding[1],
        .pitch = plan->channels,
        .first = strip.begin,
        .channels = strip.end - strip.begin,
        .weights_stride = plan->taps * plan->width,
        .ahead = plan->ahead,
        .bias = epilogue.bias,
        .clamps = epilogue.clamps,
        .low = epilogue.low,
        .high = epilogue.high,
    };
    list_rows(job, image, first, band.rows, rows);
    cnn_sight sight = {.piece = image * plan->bands + index,
                       .first = (image * dst_h + first) * band.dst_w,
                       .channel = strip.begin,
                       .channels = strip.end - strip.begin};
    compute_band(job, &band, rows, made, &sight, thread);
}

/* A strip that is one task packs for itself. */
static void pack_and_run_band(void *arg, int64_t task, int32_t thread)
{
    pack_strip(arg, task, thread);
    run_band(arg, task, thread);
}

static void pack_all(rows_job *job)
{
    const double work = (double)(job->plan->channels * job->plan->taps); /* some nanosecond for each */
    cnn_parallel(cnn_useful_threads(job->call->threads, work), job->plan->strips, pack_strip, job);
}

static void rows_pack(const cnn_conv_call *call, void *packed)
{
    const rows_plan plan = plan_rows(call->conv, call->pass, call->kernels);
    rows_job job = {.plan = &plan, .call = call, .to_weights = packed};
    pack_all(&job);
}

/* ---- backward weights -------------------------------------------------------------------------------------------- */

/* diff_weights += the shares' sums, in order. */
static void add_shares(void *arg, int64_t task, int32_t thread)
{
    (void)thread;
    const rows_job *job = arg;
    const rows_plan *plan = job->plan;
    const cnn_conv *conv = job->call->conv;
    const rows_strip strip = strip_at(plan, task);
    const int64_t *stride = conv->weights_stride, width = plan->width, share_size = plan->vectors * width * plan->taps;
    const int64_t begin = strip.begin * plan->taps, end = cnn_round_up(strip.end, width) * plan->taps;
    for (int64_t share = 1; share < plan->shares; share++) {
        const float *sums = job->sums + share * share_size;
        for (int64_t i = begin; i < end; i++) job->sums[i] += sums[i];
    }
    const float *sums = job->sums + begin;
    for (int64_t from = strip.begin; from < strip.end; from += width) {
        /* What the last vector shares with the one before it, that one has added. */
        const int64_t c = cnn_min_i64(from, plan->channels - width), first_lane = from - c;
        for (int64_t r = 0; r < conv->kh; r++)
            for (int64_t s = 0; s < conv->kw; s++, sums += width) {
                float *to = job->call->out + from * stride[0] + r * stride[2] + s * stride[3];
                for (int64_t lane = first_lane; lane < width; lane++, to += stride[0]) *to += sums[lane];
            }
    }
}

/* Makes the rows of src that the part sees, and lets it see those, by taps of its own; false: it sees none. */
static bool make_part(const rows_job *job, float *made, cnn_depthwise_tap *taps, cnn_depthwise_image *part)
{
    const cnn_conv_call *call = job->call;
    const int64_t row_floats = part->src_w * part->pitch;
    int64_t low = INT64_MAX, end = 0;
    for (int64_t t = 0; t < part->taps; t++) {
        const cnn_depthwise_tap *tap = &part->tap[t];
        const int64_t from = cnn_max_i64(tap->begin, part->begin), to = cnn_min_i64(tap->end, part->end);
        if (from >= to) continue;
        low = cnn_min_i64(low, from * part->row_step + tap->offset);
        end = cnn_max_i64(end, (to - 1) * part->row_step + tap->offset + 1);
    }
    if (low >= end) return false;
    for (int64_t t = 0; t < part->taps; t++) {
        taps[t] = part->tap[t];
        taps[t].offset -= low;
    }
    cnn_prologue_apply(call->prologue, call->kernels, (end - low) * part->src_w, part->src + low * row_floats, made);
    part->src = made;
    part->tap = taps;
    return true;
}

static void sum_share(void *arg, int64_t task, int32_t thread)
{
    const rows_job *job = arg;
    const rows_plan *plan = job->plan;
    const cnn_conv_call *call = job->call;
    const cnn_conv *conv = call->conv;
    const cnn_conv_axis *axis = &job->axes.rows;
    const int64_t share = task / plan->strips, rows = conv->n * conv->oh;
    const rows_strip strip = strip_at(plan, task % plan->strips);
    float *sums = job->sums + share * plan->vectors * plan->width * plan->taps;
    for (int64_t i = strip.begin * plan->taps; i < cnn_round_up(strip.end, plan->width) * plan->taps; i++) sums[i] = 0.0f;

    float *made;
    (void)take_scratch(job, thread, &made);
    cnn_depthwise_tap taps[MOST_TAPS];
    const int64_t end = cnn_split(rows, plan->shares, share + 1);
    for (int64_t row = cnn_split(rows, plan->shares, share), next; row < end; row = next) {
        const int64_t image = row / conv->oh;
        next = cnn_min_i64(cnn_min_i64(end, (image + 1) * conv->oh), row + plan->some_rows);
        cnn_depthwise_image part = {
            .src = call->x + image * conv->ih * conv->iw * conv->ic,
            .diff_dst = call->y + image * conv->oh * conv->ow * conv->oc,
            .src_w = conv->iw,
            .dst_w = conv->ow,
            .left = conv->padding[1],
            .row_step = conv->stride[0],
            .pitch = plan->channels,
            .begin = row - image * conv->oh,
            .end = next - image * conv->oh,
            .taps = axis->taps,
            .tap = job->kernel,
            .first = strip.begin,
            .channels = strip.end - strip.begin,
            .sums_stride = plan->taps * plan->width,
            .ahead = plan->ahead,
        };
        if (call->prologue != NULL && !make_part(job, made, taps, &part)) continue;
        call->kernels->depthwise_rows.backward_weights[conv->kw == 5][conv->stride[1] == 2](&part, sums);
    }
    if (plan->shares == 1) add_shares(arg, task, thread);
}

/* ---- the algorithm ----------------------------------------------------------------------------------------------- */

static void run_rows(const cnn_conv_call *call)
{
    const rows_plan plan = plan_rows(call->conv, call->pass, call->kernels);
    const int32_t threads = cnn_useful_threads(call->threads, WORK * cnn_conv_work(call->conv, call->kernels));
    rows_job job = {.plan = &plan, .call = call, .weights = call->packed};
    char *cursor = call->workspace;
    cnn_conv_axes_make(call->conv, plan.pass, &cursor, &job.axes);
    if (plan.pass == CNN_CONV_BACKWARD_WEIGHTS) {
        job.sums = cnn_take(&cursor, plan.sums_bytes);
        job.kernel = cnn_take(&cursor, plan.kernel_bytes);
        for (int64_t r = 0; r < job.axes.rows.taps; r++) {
            const cnn_conv_tap *tap = &job.axes.rows.tap[r];
            job.kernel[r] = (cnn_depthwise_tap){tap->k, tap->offset, tap->begin, tap->end};
        }
        job.scratch = cursor;
        cnn_parallel(threads, plan.strips * plan.shares, sum_share, &job);
        if (plan.shares > 1) {
            const double work = (double)(plan.shares * plan.channels * plan.taps);
            cnn_parallel(cnn_useful_threads(call->threads, work), plan.strips, add_shares, &job);
        }
        return;
    }
    const int64_t tasks_of_strip = call->conv->n * plan.bands;
    const bool alone = tasks_of_strip == 1;
    if (call->packed == NULL) {
        job.weights = job.to_weights = cnn_take(&cursor, plan.weights_bytes);
        if (!alone) pack_all(&job);
    }
    job.scratch = cursor;
    cnn_parallel(threads, plan.strips * tasks_of_strip,
                 alone && call->packed == NULL ? pack_and_run_band : run_band, &job);
}

static int64_t rows_pieces(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    return conv->n * plan_rows(conv, pass, kernels).bands;
}

static bool rows_suit(const cnn_conv *conv, cnn_conv_pass pass)
{
    (void)pass;
    return conv->groups == conv->ic && conv->groups == conv->oc && conv->ic >= LINE && (conv->kw == 3 || conv->kw == 5) &&
           conv->kh <= conv->kw && conv->kh <= MOST_TAPS &&
           conv->stride[1] <= 2 && conv->dilation[0] == 1 && conv->dilation[1] == 1;
}

static bool rows_prologues(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    (void)conv, (void)pass, (void)kernels;
    return true;
}

static bool rows_bands(const cnn_conv *conv)
{
    (void)conv;
    return true;
}

const cnn_conv_algorithm cnn_conv_depthwise_rows = {
    .name = "depthwise by rows",
    .suits = rows_suit,
    .workspace = rows_workspace,
    .run = run_rows,
    .packed = rows_packed,
    .pack = rows_pack,
    .bands = rows_bands,
    .pieces = rows_pieces,
    .prologues = rows_prologues,
    .reorders = true,
};
