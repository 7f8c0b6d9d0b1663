/* The transforms and products of Winograd convolution (Lavin and Gray, "Fast Algorithms for Convolutional Neural
 * Networks", 2015, arXiv:1509.09308).
 *
 * Along one axis F(m, 3) computes m results y from m + 2 sources d and three weights g by m + 2 products,
 *
 *     y = A^T ((G g) * (B^T d))
 *
 * and in two dimensions each matrix is applied to columns and rows: F(4x4, 3x3) takes 36 products for 16 results in
 * place of 144. The matrices interpolate at the points +-3/4, +-3/2, infinity and 0: exact in binary as 0, +-1, +-2
 * are, with half their rounding error, because powers stay near 1.
 *
 * F(m, 3) uses the first m + 2 points of that list, m = 3 or 4, and all its factors that depend on which points are
 * there sit in B^T. So G g is the same for both, and tiles of 4 and of 3 results share transformed weights: 7 results
 * are a tile of 4 and one of 3, by 11 products in place of 12. F(2, 3) uses the first four: where tiles are few, reading 36
 * planes of weights takes longer than the products that they save, and 16 do.
 *
 * With stride 2 the even taps of the kernel see the even sources, and the middle one the odd sources:
 *
 *     y[i] = (g0 d[2i] + g2 d[2i + 2]) + g1 d[2i + 1]
 *
 * the sum of a convolution of stride 1 with two taps, F(m, 2) by m + 1 products at the points +-1/2, +-3/2 and, for m = 4,
 * infinity, and of m products that need no transform. In two dimensions that is 81 products for 4x4 results in place of 144.
 * Its transpose makes sources from results in the same way, even ones by F(m, 2) and odd ones by one product each.
 *
 * A plane is one product of a transformed tile. Of stride 1 they are numbered row by row: of m x k results, (m + 2)(k + 2)
 * planes are in use among 6 x 6, and all of 4 x 4 where all tiles have 2 x 2 results. Of stride 2 there are 9 x 9, rows and
 * columns of points first and of odd sources behind, and transformed weights again have 6 x 6, since all m products of an odd
 * source share theirs; planes that share weights are numbered one after the other. Channels of a tile lie in panels of two vectors; a transform fills the last vector up with
 * zeros. All functions write `=` unless they say otherwise. */
#ifndef CNN_UKERNELS_WINOGRAD_H
#define CNN_UKERNELS_WINOGRAD_H

#include <stdbool.h>
#include <stdint.h>

#define CNN_WINOGRAD_MOST 4    /* results of a tile along an axis */
#define CNN_WINOGRAD_POINTS 6  /* of transformed weights along an axis, at most */
#define CNN_WINOGRAD_FILTER 36 /* planes of transformed weights, at most */
#define CNN_WINOGRAD_WINDOW 9  /* pixels of a tile along an axis, at most */

typedef enum cnn_winograd_form {
    CNN_WINOGRAD_UNIT,    /* stride 1: all passes */
    CNN_WINOGRAD_SMALL,   /* stride 1 in tiles of 2 x 2 results: forward */
    CNN_WINOGRAD_STRIDED, /* stride 2: forward and the gradient of the weights */
    CNN_WINOGRAD_SPREAD,  /* its transpose: a tile of m results makes 2 m pixels */
    CNN_WINOGRAD_FORMS
} cnn_winograd_form;

/* Of stride 2, points 0 to 4 of a transformed source are those of F(4, 2), 5 to 8 its odd sources: the number of the plane
 * at two of them. */
static inline int64_t cnn_winograd_strided_plane(int64_t row, int64_t column)
{
    if (row < 5) return 9 * row + column;
    return column < 5 ? 45 + 4 * column + row - 5 : 65 + 4 * (row - 5) + column - 5;
}

/* Where a tile's planes lie. Those of the last row or column of points, or of odd sources, hold only the tiles that use them,
 * big ones, so that a tile has four places: (last row ? 2 : 0) + (last column ? 1 : 0). */
typedef struct cnn_winograd_planes {
    float *place[4];
    int64_t stride; /* from plane to plane */
    int64_t panel;  /* from panel to panel of channels */
} cnn_winograd_planes;

/* The pixels that a tile reads: number (r, s) lies at row[r] + column + s * step. Outside the image all is zero. */
typedef struct cnn_winograd_pixels {
    const float *row[CNN_WINOGRAD_WINDOW]; /* the image's row from its begin; NULL outside */
    int64_t column, step;
    int first, last; /* columns [first, last) of the tile lie inside */
} cnn_winograd_pixels;

/* What becomes of a tile's results: to = activation(results + bias + addend), where the activation, if it `clamps`,
 * is a clamp to [low, high] that keeps NaN; else low and high are the infinities. */
typedef struct cnn_winograd_store {
    int rows, columns;                 /* how many results are wanted, */
    int skip_rows, skip_columns;       /* after so many that are not */
    int64_t row_stride, column_stride; /* of `to` and `addend` */
    float *to;
    const float *addend, *bias; /* NULL where there is none */
    bool clamps;
    float low, high;
} cnn_winograd_store;

/* The transforms of a form. A tile has rows x columns results, 3 or 4, or 2. */
struct cnn_winograd_transforms {
    /* B^T d B of a tile, from as many pixels of `channels` as its window has: rows + 2, of stride 2 2 rows + 1 forward and
     * rows + 1 of its transpose. */
    void (*src)(int rows, int columns, const cnn_winograd_pixels *from, int64_t channels,
                const cnn_winograd_planes *to);

    /* A dy A^T, for the gradient of the weights: from rows x columns pixels. NULL in the transpose of stride 2. */
    void (*diff_dst)(int rows, int columns, const cnn_winograd_pixels *from, int64_t channels,
                     const cnn_winograd_planes *to);

    /* A^T m A of a tile, to store->to[(row - skip_rows) * row_stride + (column - skip_columns) * column_stride + c]. */
    void (*dst)(int rows, int columns, const cnn_winograd_planes *from, int64_t channels,
                const cnn_winograd_store *store);

    /* One row of the points of G g G^T for `count` times `channels` filters: from g[filter][9][channels], dense,
     * `channels` whole vectors, to to[point * plane + filter * channels + c]. */
    void (*weights)(int row, int64_t count, const float *g, int channels, float *to, int64_t plane);

    /* G^T s G: g[9][channels] dense from from[i * plane + c]: the gradient of the weights from the sums. */
    void (*diff_weights)(const float *from, int64_t plane, int64_t channels, float *g);
};

/* to[r * to_row + o] = (or, with `add`, +=) sum over k < terms of a[r][k] * b[k][o], for r < rows and o < `vectors` vectors: 1 or
 * 2, or 4, of which those behind two come from b_panel floats on. Forward multiplies tiles by weights and sums over channels; b is
 * dense. The gradient of the weights multiplies channels by channels and sums over tiles: a is turned, and rows of a and b are
 * two vectors long. */
typedef struct cnn_winograd_product {
    int64_t rows, terms;
    bool turned;    /* a is a[k][r] */
    const float *a;
    int64_t a_row; /* floats from row to row, unless it is turned */
    const float *b;
    int64_t b_panel;
    int vectors;
    bool add;
    float *to;
    int64_t to_row;
    const float *next; /* the b of the product after it, laid out alike, to be brought near; or NULL: it is near */
} cnn_winograd_product;

struct cnn_winograd_kernels {
    struct cnn_winograd_transforms form[CNN_WINOGRAD_FORMS];

    void (*multiply)(const cnn_winograd_product *product);
};

#endif
