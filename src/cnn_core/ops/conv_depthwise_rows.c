/* Depthwise convolution with kernels 3 or 5 columns wide, row by row: the common ones. How its passes are cut, and forward and
 * backward data.
 *
 * A task of these computes a band of rows, of one image and a strip of channels. For each row of dst
 * it lists the rows of src inside the image that it sees; stride, dilation, padding and phases of rows live in these
 * lists, those of columns in the kernel. */
#include "ops/conv_depthwise.h"
#include "ops/conv_epilogue.h"
#include "ops/conv_tiling.h"
#include "ops/prologue.h"

#define LINE 16 /* channels of a cache line; every vector's width divides it */
#define STRIP_LINES 4
#define FAR_BYTES (3 << 20) /* of all images: they lie beyond the second-level caches */
#define NEAR_ROWS (24 << 10) /* bytes of the rows of src that one of dst sees: they stay in the first-level cache */
#define SEEN_BYTES (192 << 10) /* of a strip's src and dst, which somebody wants to see before they leave the cache */
#define MADE_BYTES (160 << 10) /* of rows of x that a prologue makes at a time, or that both gradients see: they stay in the
                                * second-level cache */
#define FROM_MEMORY (24 << 20) /* of all images: then no channels are left for later where some are read */
#define SOME_ROWS 2 /* with all channels of the strip, so that memory is read straight through */
#define AHEAD 16 /* pixels by which rows are fetched ahead */
#define FAR_AHEAD 64 /* the same, from memory */
#define NEAR_BYTES (1 << 20) /* of all images: they are in a cache, and their rows are not fetched ahead */
#define LEAST_BAND 8 /* rows; neighbouring bands read some rows of src twice */
#define LEAST_SHARE 256 /* pixels of y: clearing a share's sums and adding them up costs as much as some dozens */
#define MOST_SHARES 16 /* of backward weights alone, which take less time */

/* The lines of cache, of all channels of a pixel, that a strip may be wide for the rows that it sees to stay near. */
static int64_t near_lines(const cnn_conv *conv)
{
    return NEAR_ROWS / (int64_t)sizeof(float) / (conv->kh * cnn_max_i64(conv->iw, conv->ow) * LINE);
}

/* Sums over the rows of y: backward weights, alone or with backward data. */
static void plan_sums(const cnn_conv *conv, cnn_depthwise_plan *plan, size_t weights)
{
    const int64_t rows = conv->n * conv->oh;
    const int64_t most = plan->pass == CNN_CONV_BACKWARD ? CNN_CONV_TASKS : MOST_SHARES;
    const int64_t wanted = cnn_min_i64(cnn_ceil_div(CNN_CONV_TASKS, plan->strips), most);
    plan->shares = cnn_min_i64(cnn_min_i64(wanted, cnn_ceil_div(rows * conv->ow, LEAST_SHARE)), rows);
    plan->sums_bytes = cnn_size_align(cnn_size_mul(weights, (size_t)plan->shares));
    plan->kernel_bytes = cnn_size_align((size_t)conv->kh * sizeof(cnn_depthwise_tap));
}

/* Bands of the rows of dst: forward and backward data. */
static void plan_bands(const cnn_conv *conv, cnn_depthwise_plan *plan)
{
    const int64_t rows = plan->pass == CNN_CONV_FORWARD ? conv->oh : conv->ih;
    const int64_t wanted = cnn_ceil_div(CNN_CONV_TASKS, conv->n * plan->strips);
    plan->bands = cnn_min_i64(wanted, cnn_ceil_div(rows, LEAST_BAND));
    plan->band_rows = cnn_ceil_div(rows, plan->bands);
}

static int64_t image_bytes(const cnn_conv *conv)
{
    return conv->n * (conv->ih * conv->iw + conv->oh * conv->ow) * conv->ic * (int64_t)sizeof(float);
}

cnn_depthwise_plan cnn_depthwise_plan_of(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    cnn_depthwise_plan plan = {
        .pass = pass,
        .channels = conv->ic,
        .vectors = cnn_ceil_div(conv->ic, kernels->width),
        .width = kernels->width,
        .taps = conv->kh * conv->kw,
        .strips = cnn_max_i64(conv->ic / LINE / STRIP_LINES, 1),
    };
    const bool joint = pass == CNN_CONV_BACKWARD;
    const int64_t bytes = image_bytes(conv);
    plan.ahead = bytes >= FROM_MEMORY ? FAR_AHEAD : bytes > NEAR_BYTES ? AHEAD : 0;
    plan.some_rows = cnn_max_i64(conv->ih, conv->oh);
    const bool summing = pass == CNN_CONV_BACKWARD_WEIGHTS; /* which wants many tasks */
    const bool wide = near_lines(conv) >= STRIP_LINES && (bytes >= FAR_BYTES || !summing);
    if (wide) plan.strips = cnn_ceil_div(conv->ic / LINE, near_lines(conv));
    if (bytes >= FROM_MEMORY) plan.strips = 1;
    if (wide || bytes >= FROM_MEMORY) plan.some_rows = SOME_ROWS;
    if (joint || (conv->prologue && pass != CNN_CONV_BACKWARD_DATA)) {
        const int64_t row_floats = conv->iw * conv->ic, step = conv->stride[0];
        const int64_t fitting = MADE_BYTES / (int64_t)sizeof(float) / row_floats;
        plan.strips = 1;
        plan.some_rows = fitting > conv->kh ? (fitting - conv->kh) / step + 1 : 1;
        plan.ahead = cnn_min_i64(plan.ahead, AHEAD);
        if (conv->prologue)
            plan.made_bytes = cnn_float_bytes(((plan.some_rows - 1) * step + conv->kh) * row_floats);
    }
    const size_t weights = cnn_size_mul((size_t)(plan.vectors * plan.width), (size_t)plan.taps * sizeof(float));
    if (pass != CNN_CONV_BACKWARD_WEIGHTS) plan.weights_bytes = cnn_size_align(weights);
    if (joint || pass == CNN_CONV_BACKWARD_WEIGHTS)
        plan_sums(conv, &plan, weights);
    else
        plan_bands(conv, &plan);
    if (joint) plan.band_rows = cnn_depthwise_joint_rows(conv, plan.some_rows);
    if (joint && conv->back_prologue)
        plan.back_made_bytes = cnn_float_bytes(cnn_depthwise_joint_back_rows(conv, plan.some_rows) * conv->ow * conv->oc);
    plan.row_bytes = cnn_size_align((size_t)plan.band_rows * sizeof(cnn_depthwise_row));
    plan.axes_bytes = cnn_conv_axes_bytes(conv, joint ? CNN_CONV_FORWARD : pass);
    if (joint) plan.axes_bytes = cnn_size_add(plan.axes_bytes, cnn_conv_axes_bytes(conv, CNN_CONV_BACKWARD_DATA));
    return plan;
}

static size_t rows_packed(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    return cnn_depthwise_plan_of(conv, pass, kernels).weights_bytes;
}

static size_t thread_bytes(const cnn_depthwise_plan *plan)
{
    return cnn_size_add(plan->row_bytes, cnn_size_add(plan->made_bytes, plan->back_made_bytes));
}

static size_t rows_workspace(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels, int32_t threads)
{
    const cnn_depthwise_plan plan = cnn_depthwise_plan_of(conv, pass, kernels);
    const size_t shared = cnn_size_add(plan.axes_bytes, conv->packed ? 0 : plan.weights_bytes);
    const size_t scratch = cnn_size_mul(thread_bytes(&plan), (size_t)threads);
    return cnn_size_add(cnn_size_add(shared, cnn_size_add(plan.sums_bytes, plan.kernel_bytes)), scratch);
}

cnn_depthwise_scratch cnn_depthwise_scratch_of(const cnn_depthwise_job *job, int32_t thread)
{
    const cnn_depthwise_plan *plan = job->plan;
    char *cursor = job->scratch + (size_t)thread * thread_bytes(plan);
    cnn_depthwise_scratch scratch = {.row = cnn_take(&cursor, plan->row_bytes)};
    scratch.made = cnn_take(&cursor, plan->made_bytes);
    scratch.back_made = cnn_take(&cursor, plan->back_made_bytes);
    return scratch;
}

cnn_depthwise_strip cnn_depthwise_strip_at(const cnn_depthwise_plan *plan, int64_t strip)
{
    const int64_t lines = plan->channels / LINE;
    return (cnn_depthwise_strip){.begin = cnn_split(lines, plan->strips, strip) * LINE,
                                 .end = strip + 1 == plan->strips ? plan->channels
                                                                  : cnn_split(lines, plan->strips, strip + 1) * LINE};
}

/* ---- forward, backward data -------------------------------------------------------------------------------------- */

/* Backward data of stride 1 is forward with the kernel's columns turned around; of the rows the axes take care. */
static bool turns_columns(const cnn_conv *conv, cnn_conv_pass pass)
{
    return pass != CNN_CONV_FORWARD && conv->stride[1] == 1;
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
    const cnn_depthwise_job *job = arg;
    const cnn_depthwise_plan *plan = job->plan;
    const cnn_conv *conv = job->call->conv;
    const cnn_depthwise_strip strip = cnn_depthwise_strip_at(plan, task);
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

void cnn_depthwise_list_rows(const cnn_depthwise_job *job, int64_t image, int64_t first, int64_t rows, cnn_depthwise_row *row)
{
    const cnn_conv_call *call = job->call;
    const cnn_conv *conv = call->conv;
    const cnn_conv_axis *axis = &job->axes.rows;
    const bool back = job->plan->pass != CNN_CONV_FORWARD;
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
static void make_rows(const cnn_depthwise_job *job, int64_t rows, cnn_depthwise_row *row, float *made)
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

void cnn_depthwise_run_band(const cnn_depthwise_job *job, const cnn_depthwise_band *band)
{
    const cnn_conv *conv = job->call->conv;
    const bool back = job->plan->pass != CNN_CONV_FORWARD;
    const int wide = conv->kw == 5, skips = !back && conv->stride[1] == 2;
    const struct cnn_depthwise_rows_kernels *kernels = &job->call->kernels->depthwise_rows;
    (back && !turns_columns(conv, job->plan->pass) ? kernels->spread[wide] : kernels->forward[wide][skips])(band);
}

/* The band's rows, some at a time if somebody wants to see them while they are in the second-level cache. */
static void compute_band(const cnn_depthwise_job *job, cnn_depthwise_band *band, const cnn_depthwise_scratch *scratch,
                         cnn_sight *sight, int32_t thread)
{
    const cnn_depthwise_plan *plan = job->plan;
    const cnn_conv_call *call = job->call;
    const int64_t rows = band->rows, row_bytes = (band->src_w + band->dst_w) * band->channels * (int64_t)sizeof(float);
    int64_t most = call->watch == NULL ? plan->some_rows : cnn_max_i64(SEEN_BYTES / row_bytes, 2);
    if (call->prologue != NULL) most = cnn_min_i64(most, plan->some_rows);
    for (int64_t first = 0; first < rows; first += band->rows) {
        band->rows = cnn_min_i64(most, rows - first);
        band->row = scratch->row + first;
        if (call->prologue != NULL) make_rows(job, band->rows, scratch->row + first, scratch->made);
        cnn_depthwise_run_band(job, band);
        activate_band(call, band);
        if (call->watch == NULL) continue;
        sight->rows = band->rows * band->dst_w;
        call->watch->see(call->watch, sight, thread);
        sight->first += sight->rows;
        sight->done += sight->rows;
    }
}

cnn_depthwise_band cnn_depthwise_band_of(const cnn_depthwise_job *job, cnn_depthwise_strip strip)
{
    const cnn_depthwise_plan *plan = job->plan;
    const cnn_conv *conv = job->call->conv;
    const cnn_conv_epilogue epilogue = cnn_conv_epilogue_of(job->call);
    const bool back = plan->pass != CNN_CONV_FORWARD, turns = turns_columns(conv, plan->pass);
    return (cnn_depthwise_band){
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
}

static void run_band(void *arg, int64_t task, int32_t thread)
{
    const cnn_depthwise_job *job = arg;
    const cnn_depthwise_plan *plan = job->plan;
    const cnn_conv *conv = job->call->conv;
    const int64_t strip_index = task % plan->strips, index = task / plan->strips % plan->bands,
                  image = task / plan->strips / plan->bands;
    const int64_t dst_h = plan->pass == CNN_CONV_FORWARD ? conv->oh : conv->ih;
    const int64_t first = cnn_split(dst_h, plan->bands, index);
    const cnn_depthwise_strip strip = cnn_depthwise_strip_at(plan, strip_index);
    const cnn_depthwise_scratch scratch = cnn_depthwise_scratch_of(job, thread);
    cnn_depthwise_band band = cnn_depthwise_band_of(job, strip);
    band.rows = cnn_split(dst_h, plan->bands, index + 1) - first;
    cnn_depthwise_list_rows(job, image, first, band.rows, scratch.row);
    cnn_sight sight = {.piece = image * plan->bands + index,
                       .first = (image * dst_h + first) * band.dst_w,
                       .channel = strip.begin,
                       .channels = strip.end - strip.begin};
    compute_band(job, &band, &scratch, &sight, thread);
}

/* A strip that is one task packs for itself. */
static void pack_and_run_band(void *arg, int64_t task, int32_t thread)
{
    pack_strip(arg, task, thread);
    run_band(arg, task, thread);
}

void cnn_depthwise_pack(cnn_depthwise_job *job)
{
    const double work = (double)(job->plan->channels * job->plan->taps); /* some nanosecond for each */
    cnn_parallel(cnn_useful_threads(job->call->threads, work), job->plan->strips, pack_strip, job);
}

static void rows_pack(const cnn_conv_call *call, void *packed)
{
    const cnn_depthwise_plan plan = cnn_depthwise_plan_of(call->conv, call->pass, call->kernels);
    cnn_depthwise_job job = {.plan = &plan, .call = call, .to_weights = packed};
    cnn_depthwise_pack(&job);
}

/* ---- the algorithm ----------------------------------------------------------------------------------------------- */

static void run_bands(const cnn_conv_call *call)
{
    const cnn_depthwise_plan plan = cnn_depthwise_plan_of(call->conv, call->pass, call->kernels);
    cnn_depthwise_job job = {.plan = &plan, .call = call, .weights = call->packed};
    char *cursor = call->workspace;
    cnn_conv_axes_make(call->conv, plan.pass, &cursor, &job.axes);
    const int64_t tasks_of_strip = call->conv->n * plan.bands;
    const bool alone = tasks_of_strip == 1;
    if (call->packed == NULL) {
        job.weights = job.to_weights = cnn_take(&cursor, plan.weights_bytes);
        if (!alone) cnn_depthwise_pack(&job);
    }
    job.scratch = cursor;
    cnn_parallel(cnn_depthwise_threads(call), plan.strips * tasks_of_strip,
                 alone && call->packed == NULL ? pack_and_run_band : run_band, &job);
}

static void run_rows(const cnn_conv_call *call)
{
    if (call->pass == CNN_CONV_BACKWARD)
        cnn_depthwise_run_joint(call);
    else if (call->pass == CNN_CONV_BACKWARD_WEIGHTS)
        cnn_depthwise_run_sums(call);
    else
        run_bands(call);
}

static int64_t rows_pieces(const cnn_conv *conv, cnn_conv_pass pass, const cnn_kernels *kernels)
{
    const cnn_depthwise_plan plan = cnn_depthwise_plan_of(conv, pass, kernels);
    return pass == CNN_CONV_BACKWARD ? plan.shares : conv->n * plan.bands;
}

/* Out of a cache both gradients are faster one after the other, channel by channel. */
static bool rows_suit(const cnn_conv *conv, cnn_conv_pass pass)
{
    return (pass != CNN_CONV_BACKWARD || image_bytes(conv) >= FROM_MEMORY) && conv->groups == conv->ic && conv->groups == conv->oc && conv->ic >= LINE && (conv->kw == 3 || conv->kw == 5) &&
           conv->kh <= conv->kw && conv->kh <= CNN_DEPTHWISE_TAPS &&
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
    .joins = true,
    .reorders = true,
};
