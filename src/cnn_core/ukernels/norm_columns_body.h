/* Normalization by columns in the vector vocabulary; what each kernel computes: norm.h. Included by norm_body.h.
 *
 * Columns walk memory as it lies, row by row, with sums of a row's length in memory, where the nearest cache holds
 * them. To read several rows side by side would spare loads and stores of sums, but takes twice as long where src comes
 * from memory: it defeats the prefetching. What lies in a near cache is walked down in columns, with sums in registers, to
 * the same bits.
 *
 * Activations are those of activation_body.h, so that the same numbers come out as without fusion. Which one it is, and
 * what else differs from call to call, are arguments that are constants wherever these functions are inlined. */

/* Calls STEP(at, j, lanes) for every vector, at = row * stride + j. */
#define NORM_FOR_ROWS(rows, width, stride, STEP)                                                     \
    do {                                                                                             \
        for (int64_t i_ = 0; i_ < (rows); i_++) {                                                    \
            int64_t j_ = 0;                                                                          \
            for (; j_ + VF_WIDTH <= (width); j_ += VF_WIDTH) STEP(i_ * (stride) + j_, j_, VF_WIDTH); \
            if (j_ < (width)) STEP(i_ * (stride) + j_, j_, (int)((width)-j_));                       \
        }                                                                                            \
    } while (0)
#define NORM_FOR_MATRIX(rows, width, STEP) NORM_FOR_ROWS(rows, width, width, STEP)

#define NORM_LINE 16  /* floats of a line of cache */
#define NORM_AHEAD 2048 /* floats by which what comes from memory is fetched ahead: nearer, memory is not kept busy */

/* Fetches a line when its first vector is read; all lines of a row at once would wait for each other. */
VF_INLINE void norm_fetch(const float *x, int64_t j)
{
    if (VF_WIDTH >= NORM_LINE || j % NORM_LINE == 0) VF_FETCH(x + NORM_AHEAD);
}

static inline void norm_clear(int64_t n, float *x)
{
    for (int64_t j = 0; j < n; j++) x[j] = 0.0f;
}

static void norm_column_sums(int64_t rows, int64_t width, int64_t stride, const float *x, float *sum)
{
    norm_clear(width, sum);
#define STEP(at, j, lanes) norm_add(sum + (j), norm_load(x + (at), lanes), lanes)
    NORM_FOR_ROWS(rows, width, stride, STEP);
#undef STEP
}

VF_INLINE void norm_moments_step(const float *x, const float *pivot, float *first, float *second, int lanes)
{
    const vf d = vf_sub(norm_load(x, lanes), norm_load(pivot, lanes));
    norm_add(first, d, lanes);
    norm_store(second, vf_fmadd(d, d, norm_load(second, lanes)), lanes);
}

#define NORM_NEAR 4 /* vectors side by side: sums enough to cover an addition's latency */

/* The moments of `count` vectors of columns, down all rows; one alone may have fewer lanes. */
VF_INLINE void norm_moments_down(int64_t rows, int64_t stride, const float *x, const float *pivot, int count, int lanes,
                                 float *first, float *second)
{
    vf p[NORM_NEAR], s[NORM_NEAR], q[NORM_NEAR];
    for (int k = 0; k < count; k++) {
        p[k] = norm_load(pivot + k * VF_WIDTH, lanes);
        s[k] = q[k] = vf_zero();
    }
    for (int64_t i = 0; i < rows; i++, x += stride)
        for (int k = 0; k < count; k++) {
            const vf d = vf_sub(norm_load(x + k * VF_WIDTH, lanes), p[k]);
            s[k] = vf_add(s[k], d);
            q[k] = vf_fmadd(d, d, q[k]);
        }
    for (int k = 0; k < count; k++) {
        norm_store(first + k * VF_WIDTH, s[k], lanes);
        norm_store(second + k * VF_WIDTH, q[k], lanes);
    }
}

static void norm_column_moments_near(int64_t rows, int64_t width, int64_t stride, const float *x, const float *pivot,
                                     float *first, float *second)
{
    int64_t j = 0;
    for (; j + NORM_NEAR * VF_WIDTH <= width; j += NORM_NEAR * VF_WIDTH)
        norm_moments_down(rows, stride, x + j, pivot + j, NORM_NEAR, VF_WIDTH, first + j, second + j);
    for (; j + 2 * VF_WIDTH <= width; j += 2 * VF_WIDTH)
        norm_moments_down(rows, stride, x + j, pivot + j, 2, VF_WIDTH, first + j, second + j);
    for (; j < width; j += VF_WIDTH) {
        const int lanes = width - j < VF_WIDTH ? (int)(width - j) : VF_WIDTH;
        norm_moments_down(rows, stride, x + j, pivot + j, 1, lanes, first + j, second + j);
    }
}

VF_INLINE void norm_moments_rows(const bool fetches, int64_t rows, int64_t width, int64_t stride, const float *x,
                                 const float *pivot, float *first, float *second)
{
    norm_clear(width, first);
    norm_clear(width, second);
#define STEP(at, j, lanes)                                                          \
    do {                                                                            \
        if (fetches) norm_fetch(x + (at), j);                                       \
        norm_moments_step(x + (at), pivot + (j), first + (j), second + (j), lanes); \
    } while (0)
    NORM_FOR_ROWS(rows, width, stride, STEP);
#undef STEP
}

static void norm_column_moments(int64_t rows, int64_t width, int64_t stride, const float *x, const float *pivot,
                                float *first, float *second)
{
    norm_moments_rows(false, rows, width, stride, x, pivot, first, second);
}

static void norm_column_moments_far(int64_t rows, int64_t width, int64_t stride, const float *x, const float *pivot,
                                    float *first, float *second)
{
    norm_moments_rows(true, rows, width, stride, x, pivot, first, second);
}

/* The pivot need not be the rows' mean: what the first moment about it tells puts both right. */
static void norm_column_merge(int64_t width, int64_t rows, const float *pivot, const float *first, const float *second,
                              int64_t count, double *mean, double *m2)
{
    const double inverse = 1.0 / (double)rows, share = (double)rows / (double)(count + rows);
    const double between = (double)count * share;
    for (int64_t j = 0; j < width; j++) {
        const double offset = (double)first[j] * inverse, delta = (double)pivot[j] + offset - mean[j];
        mean[j] += delta * share;
        m2[j] += (double)second[j] - offset * (double)first[j] + delta * delta * between;
    }
}

/* ---- forward ----------------------------------------------------------------------------------------------------- */

VF_INLINE vf norm_activate(cnn_norm_activation kind, vf y, vf slope)
{
    switch (kind) {
    case CNN_NORM_LINEAR: break;
    case CNN_NORM_RELU: return relu(y);
    case CNN_NORM_RELU6: return clamp(y, 0.0f, 6.0f);
    case CNN_NORM_LEAKY_RELU: return leaky_relu(y, slope);
    }
    return y;
}

VF_INLINE void norm_forward_step(struct cnn_norm_forward f, cnn_norm_activation kind, bool adds, int64_t at, int64_t j,
                                 int lanes)
{
    const vf d = vf_sub(norm_load(f.src + at, lanes), norm_load(f.mean + j, lanes));
    vf y = vf_fmadd(d, norm_load(f.scale + j, lanes), norm_load(f.shift + j, lanes));
    if (adds) y = vf_add(y, norm_load(f.addend + at, lanes));
    norm_put(f.dst + at, norm_activate(kind, y, vf_set1(f.slope)), lanes, f.stream);
}

VF_INLINE void norm_forward_matrix(struct cnn_norm_forward f, cnn_norm_activation kind, bool adds)
{
#define STEP(at, j, lanes) norm_forward_step(f, kind, adds, at, j, lanes)
    NORM_FOR_MATRIX(f.rows, f.width, STEP);
#undef STEP
}

VF_INLINE void norm_forward_as(struct cnn_norm_forward f, cnn_norm_activation kind)
{
    if (f.addend != NULL)
        norm_forward_matrix(f, kind, true);
    else
        norm_forward_matrix(f, kind, false);
}

static void norm_column_forward(const struct cnn_norm_forward *f)
{
    switch (f->activation) {
    case CNN_NORM_LINEAR: norm_forward_as(*f, CNN_NORM_LINEAR); break;
    case CNN_NORM_RELU: norm_forward_as(*f, CNN_NORM_RELU); break;
    case CNN_NORM_RELU6: norm_forward_as(*f, CNN_NORM_RELU6); break;
    case CNN_NORM_LEAKY_RELU: norm_forward_as(*f, CNN_NORM_LEAKY_RELU); break;
    }
    if (f->stream) vf_stream_end();
}

/* ---- backward ---------------------------------------------------------------------------------------------------- */

/* g activation'(y), where y may be the activation's argument or its value: they lie on the same side of its kinks. */
VF_INLINE vf norm_gate(cnn_norm_activation kind, vf y, vf g, vf slope)
{
    switch (kind) {
    case CNN_NORM_LINEAR: break;
    case CNN_NORM_RELU: return relu_gradient(y, g);
    case CNN_NORM_RELU6: return clamp_gradient(y, 0.0f, 6.0f, g);
    case CNN_NORM_LEAKY_RELU: return leaky_relu_gradient(y, g, slope);
    }
    return g;
}

/* What the functions below are specialised for. */
typedef struct norm_backward_form {
    cnn_norm_activation kind;
    bool reads_dst;  /* else y is computed again, to the same bits as forward had */
    bool writes_g;   /* dots */
    bool fetches;    /* dots */
    bool is_constant; /* gradient: b and c are none */
} norm_backward_form;

/* g at a vector whose src, less its mean, is d. */
VF_INLINE vf norm_gated(struct cnn_norm_backward f, norm_backward_form form, vf d, int64_t at, int64_t j, int lanes)
{
    const vf g = norm_load(f.diff_dst + at, lanes);
    if (form.kind == CNN_NORM_LINEAR) return g;
    const vf y = form.reads_dst ? norm_load(f.dst + at, lanes)
                                : vf_fmadd(d, norm_load(f.scale + j, lanes), norm_load(f.shift + j, lanes));
    return norm_gate(form.kind, y, g, vf_set1(f.slope));
}

VF_INLINE void norm_dots_step(struct cnn_norm_backward f, norm_backward_form form, int64_t at, int64_t j, int lanes)
{
    if (form.fetches) {
        norm_fetch(f.src + at, j);
        norm_fetch(f.diff_dst + at, j);
    }
    const vf d = vf_sub(norm_load(f.src + at, lanes), norm_load(f.mean + j, lanes));
    const vf g = norm_gated(f, form, d, at, j, lanes);
    if (form.writes_g) norm_store(f.gated + at, g, lanes);
    norm_add(f.sum + j, g, lanes);
    norm_store(f.dot + j, vf_fmadd(g, d, norm_load(f.dot + j, lanes)), lanes);
}

VF_INLINE void norm_dots_matrix(struct cnn_norm_backward f, norm_backward_form form)
{
#define STEP(at, j, lanes) norm_dots_step(f, form, at, j, lanes)
    NORM_FOR_ROWS(f.rows, f.width, f.stride, STEP);
#undef STEP
}

VF_INLINE void norm_dots_as(struct cnn_norm_backward f, cnn_norm_activation kind)
{
    norm_clear(f.width, f.sum);
    norm_clear(f.width, f.dot);
    if (f.gated != NULL)
        norm_dots_matrix(f, (norm_backward_form){.kind = kind, .reads_dst = true, .writes_g = true});
    else if (f.dst != NULL && kind != CNN_NORM_LINEAR)
        norm_dots_matrix(f, (norm_backward_form){.kind = kind, .reads_dst = true});
    else if (f.far)
        norm_dots_matrix(f, (norm_backward_form){.kind = kind, .fetches = true});
    else
        norm_dots_matrix(f, (norm_backward_form){.kind = kind});
}

static void norm_column_dots(const struct cnn_norm_backward *f)
{
    switch (f->activation) {
    case CNN_NORM_LINEAR: norm_dots_as(*f, CNN_NORM_LINEAR); break;
    case CNN_NORM_RELU: norm_dots_as(*f, CNN_NORM_RELU); break;
    case CNN_NORM_RELU6: norm_dots_as(*f, CNN_NORM_RELU6); break;
    case CNN_NORM_LEAKY_RELU: norm_dots_as(*f, CNN_NORM_LEAKY_RELU); break;
    }
}

VF_INLINE void norm_gradient_step(struct cnn_norm_backward f, norm_backward_form form, int64_t at, int64_t j, int lanes)
{
    const vf d = vf_sub(norm_load(f.src + at, lanes), norm_load(f.mean + j, lanes));
    const vf g = norm_gated(f, form, d, at, j, lanes), scale = norm_load(f.scale + j, lanes);
    const vf dx = form.is_constant
                      ? vf_mul(g, scale)
                      : vf_fmadd(g, scale, vf_fmadd(d, norm_load(f.b + j, lanes), norm_load(f.c + j, lanes)));
    norm_put(f.diff_src + at, dx, lanes, f.stream);
}

VF_INLINE void norm_gradient_matrix(struct cnn_norm_backward f, norm_backward_form form)
{
#define STEP(at, j, lanes) norm_gradient_step(f, form, at, j, lanes)
    NORM_FOR_MATRIX(f.rows, f.width, STEP);
#undef STEP
}

VF_INLINE void norm_gradient_as(struct cnn_norm_backward f, cnn_norm_activation kind)
{
    const bool reads_dst = f.dst != NULL && kind != CNN_NORM_LINEAR;
    if (f.b == NULL && reads_dst)
        norm_gradient_matrix(f, (norm_backward_form){.kind = kind, .reads_dst = true, .is_constant = true});
    else if (f.b == NULL)
        norm_gradient_matrix(f, (norm_backward_form){.kind = kind, .is_constant = true});
    else if (reads_dst)
        norm_gradient_matrix(f, (norm_backward_form){.kind = kind, .reads_dst = true});
    else
        norm_gradient_matrix(f, (norm_backward_form){.kind = kind});
}

static void norm_column_gradient(const struct cnn_norm_backward *f)
{
    switch (f->activation) {
    case CNN_NORM_LINEAR: norm_gradient_as(*f, CNN_NORM_LINEAR); break;
    case CNN_NORM_RELU: norm_gradient_as(*f, CNN_NORM_RELU); break;
    case CNN_NORM_RELU6: norm_gradient_as(*f, CNN_NORM_RELU6); break;
    case CNN_NORM_LEAKY_RELU: norm_gradient_as(*f, CNN_NORM_LEAKY_RELU); break;
    }
    if (f->stream) vf_stream_end();
}
