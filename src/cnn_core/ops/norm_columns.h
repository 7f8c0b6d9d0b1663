/* Normalization by channel, where the channels are the columns of memory: batch, instance and group normalization. */
#ifndef CNN_OPS_NORM_COLUMNS_H
#define CNN_OPS_NORM_COLUMNS_H

#include "ops/norm.h"

/* Memory is [samples][rows][channels], and a mean and a variance belong to each sample and group of channels:
 *   batch     1 sample of n h w rows, each channel a group
 *   instance  n samples of h w rows, each channel a group
 *   group     n samples of h w rows */
typedef struct cnn_norm_columns {
    int64_t samples, rows, channels, groups;
    int64_t matrices; /* not 0: memory is [matrices][channels][length], and columns are made of it in the workspace */
    bool constant;    /* the statistics are given, in `saved`, not taken from src; one sample, each channel a group */
} cnn_norm_columns;

/* The view of src (n, c, ...) with the statistics of each image, or of all images together. */
cnn_norm_columns cnn_norm_columns_of(const cnn_node *node, bool per_image, int64_t groups);

/* pieces: node->pieces or, backward, node->back_pieces. */
size_t cnn_norm_columns_workspace(const cnn_norm_columns *view, int64_t pieces, bool backward, int32_t threads);
/* Whether forward can leave its result, and backward the gradient of src, to who reads it (see cnn_op_row). Behind the statistics
 * they then save coefficients, so that so many bytes are saved in all; dst, or diff_src, is NULL. */
bool cnn_norm_columns_defers(const cnn_norm_columns *view, const cnn_node *node);
size_t cnn_norm_columns_deferred_bytes(const cnn_norm_columns *view);
void cnn_norm_columns_prologue(const cnn_norm_columns *view, const cnn_call *call, cnn_prologue *prologue);
void cnn_norm_columns_back_prologue(const cnn_norm_columns *view, const cnn_call *call, cnn_back_prologue *prologue);
/* Whether the passes can take the epilogue. */
bool cnn_norm_columns_fuses(const cnn_norm_columns *view, const cnn_epilogue *epilogue, bool backward);
/* Starts forward of a whole batch in node->pieces, with the workspace that it will be called with: *watch takes the moments
 * of each piece of src as it is made. */
void cnn_norm_columns_watch(const cnn_norm_columns *view, const cnn_call *call, cnn_watch *watch);
/* dst gets `=`, and so does `saved`, unless the statistics are constant. */
void cnn_norm_columns_forward(const cnn_norm_columns *view, const cnn_call *call);
/* Starts backward in node->back_pieces likewise: *watch takes the sums over each piece of diff_dst as it is made. Nothing is
 * added to the result. */
void cnn_norm_columns_back_watch(const cnn_norm_columns *view, const cnn_call *call, cnn_watch *watch);
/* diff_src gets `=`, the gradients of weights and bias `+=`. Behind an activation dst is read where there is an addend;
 * else bias is, to compute it again. */
void cnn_norm_columns_backward(const cnn_norm_columns *view, const cnn_call *call);

#endif
