/* Normalization by columns in the vector vocabulary; what each kernel computes: norm.h. Included by norm_body.h.
 *
 * Columns walk memory as it lies, row by row, with sums of a row's length in memory, where the nearest cache holds them;
 * taking a few rows at a time reads and writes them less often, and sums in two levels.
 *
 * Activations are those of activation_body.h, so that the same numbers come out as without fusion. Which one it is, and
 * what else differs from call to call, are arguments that are constants wherever these functions are inlined. */

#define NORM_ROWS 4

/* Calls STEP(at, j, rows, lanes) for every group of rows and vector of columns j, with at = row * width + j. */
#define NORM_FOR_MATRIX(rows, width, STEP)                                                                  \
    do {                                                                                                    \
        int64_t i_ = 0;                                                                                     \
        for (; i_ + NORM_ROWS <= (rows); i_ += NORM_ROWS) {                                                 \
            int64_t j_ = 0;                                                                                 \
            for (; j_ + VF_WIDTH <= (width); j_ += VF_WIDTH) STEP(i_ * (width) + j_, j_, NORM_ROWS, VF_WIDTH); \
            if (j_ < (width)) STEP(i_ * (width) + j_, j_, NORM_ROWS, (int)((width)-j_));                    \
        }                                                                                                   \
        for (; i_ < (rows); i_++) {                                                                         \
            int64_t j_ = 0;                                                                                 \
            for (; j_ + VF_WIDTH <= (width); j_ += VF_WIDTH) STEP(i_ * (width) + j_, j_, 1, VF_WIDTH);      \
            if (j_ < (width)) STEP(i_ * (width) + j_, j_, 1, (int)((width)-j_));                            \
        }                                                                                                   \
    } while (0)

static inline void norm_clear(int64_t n, float *x)
{
    for (int64_t j = 0; j < n; j++) x[j] = 0.0f;
}

static inline void norm_sums_step(int64_t width, const float *x, float *sum, int rows, int lanes)
{
    vf s = norm_load(x, lanes);
    for (int i = 1; i < rows; i++) s = vf_add(s, norm_load(x + i * width, lanes));
    norm_add(sum, s, lanes);
}

static void norm_column_sums(int64_t rows, int64_t width, const float *x, float *sum)
{
    norm_clear(width, sum);
#define STEP(at, j, count, lanes) norm_sums_step(width, x + (at), sum + (j), count, lanes)
    NORM_FOR_MATRIX(rows, width, STEP);
#undef STEP
}

static inline void norm_moments_step(int64_t width, const float *x, const float *pivot, float *first, float *second,
                                     int rows, int lanes)
{
    const vf center = norm_load(pivot, lanes);
    vf d = vf_sub(norm_load(x, lanes), center);
    vf s1 = d, s2 = vf_mul(d, d);
    for (int i = 1; i < rows; i++) {
        d = vf_sub(norm_load(x + i * width, lanes), center);
        s1 = vf_add(s1, d);
        s2 = vf_fmadd(d, d, s2);
    }
    norm_add(first, s1, lanes);
    norm_add(second, s2, lanes);
}

static void norm_column_moments(int64_t rows, int64_t width, const float *x, const float *pivot, float *first,
                                float *second)
{
    norm_clear(width, first);
    norm_clear(width, second);
#define STEP(at, j, count, lanes) \
    norm_moments_step(width, x + (at), pivot + (j), first + (j), second + (j), count, lanes)
    NORM_FOR_MATRIX(rows, width, STEP);
#undef STEP
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
                                 int rows, int lanes)
{
    const vf mean = norm_load(f.mean + j, lanes), scale = norm_load(f.scale + j, lanes);
    const vf shift = norm_load(f.shift + j, lanes), slope = vf_set1(f.slope);
    for (int i = 0; i < rows; i++, at += f.width) {
        vf y = vf_fmadd(vf_sub(norm_load(f.src + at, lanes), mean), scale, shift);
        if (adds) y = vf_add(y, norm_load(f.addend + at, lanes));
        norm_store(f.dst + at, norm_activate(kind, y, slope), lanes);
    }
}

VF_INLINE void norm_forward_matrix(struct cnn_norm_forward f, cnn_norm_activation kind, bool adds)
{
#define STEP(at, j, count, lanes) norm_forward_step(f, kind, adds, at, j, count, lanes)
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
    bool is_constant; /* gradient: b and c are none */
} norm_backward_form;

/* g at a vector whose src, less its mean, is d. */
VF_INLINE vf norm_gated(struct cnn_norm_backward f, norm_backward_form form, vf d, vf scale, vf shift, int64_t at, int lanes)
{
    const vf g = norm_load(f.diff_dst + at, lanes);
    if (form.kind == CNN_NORM_LINEAR) return g;
    const vf y = form.reads_dst ? norm_load(f.dst + at, lanes) : vf_fmadd(d, scale, shift);
    return norm_gate(form.kind, y, g, vf_set1(f.slope));
}

VF_INLINE void norm_dots_step(struct cnn_norm_backward f, norm_backward_form form, int64_t at, int64_t j, int rows,
                              int lanes)
{
    const vf mean = norm_load(f.mean + j, lanes), scale = norm_load(f.scale + j, lanes);
    const vf shift = norm_load(f.shift + j, lanes);
    vf sum = vf_zero(), dot = vf_zero();
    for (int i = 0; i < rows; i++, at += f.width) {
        const vf d = vf_sub(norm_load(f.src + at, lanes), mean);
        const vf g = norm_gated(f, form, d, scale, shift, at, lanes);
        if (form.writes_g) norm_store(f.gated + at, g, lanes);
        sum = vf_add(sum, g);
        dot = vf_fmadd(g, d, dot);
    }
    norm_add(f.sum + j, sum, lanes);
    norm_add(f.dot + j, dot, lanes);
}

VF_INLINE void norm_dots_matrix(struct cnn_norm_backward f, norm_backward_form form)
{
#define STEP(at, j, count, lanes) norm_dots_step(f, form, at, j, count, lanes)
    NORM_FOR_MATRIX(f.rows, f.width, STEP);
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

VF_INLINE void norm_gradient_step(struct cnn_norm_backward f, norm_backward_form form, int64_t at, int64_t j, int rows,
                                  int lanes)
{
    const vf mean = norm_load(f.mean + j, lanes), scale = norm_load(f.scale + j, lanes);
    const vf shift = norm_load(f.shift + j, lanes);
    const vf b = form.is_constant ? vf_zero() : norm_load(f.b + j, lanes);
    const vf c = form.is_constant ? vf_zero() : norm_load(f.c + j, lanes);
    for (int i = 0; i < rows; i++, at += f.width) {
        const vf d = vf_sub(norm_load(f.src + at, lanes), mean);
        const vf g = norm_gated(f, form, d, scale, shift, at, lanes);
        norm_store(f.diff_src + at, form.is_constant ? vf_mul(g, scale) : vf_fmadd(g, scale, vf_fmadd(d, b, c)), lanes);
    }
}

VF_INLINE void norm_gradient_matrix(struct cnn_norm_backward f, norm_backward_form form)
{
#define STEP(at, j, count, lanes) norm_gradient_step(f, form, at, j, count, lanes)
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
}
