/* The core that runs inside pycnn, for other extension modules: a table of its functions in a capsule. Nothing is linked, and
 * the process has one engine with one pool of threads.
 *
 *     #include <Python.h>
 *     #include <cnn_api.h>            each source file that calls the core includes this in place of cnn_core.h
 *     ...
 *     if (import_cnn_core() < 0) return NULL;      once in each such file, as in its module's init function
 *     cnn_graph_create(CNN_FLOAT32, &graph);       and then as cnn_core.h says, with or without the GIL
 *
 * Only PyCapsule_Import is asked of Python, so that the limited API suffices. With CNN_CORE_LINKED defined this is cnn_core.h
 * and no more, for a module that links the library into itself.
 */
#ifndef CNN_API_H
#define CNN_API_H

#include "cnn_core.h"

/* Append only: the order is the binary interface. A new function comes last, here and among the macros below. */
#define CNN_API_FUNCTIONS(F) \
    F(last_error) F(version) F(abi_version) \
    F(initialize) F(isa) F(available_isas) F(get_num_threads) F(set_num_threads) F(thread_backend) \
    F(graph_create) F(graph_free) F(graph_input) F(graph_parameter) F(graph_state) F(graph_apply) F(graph_output) \
    F(graph_watch) F(graph_require_gradient) F(graph_num_values) F(graph_shape) \
    F(plan_create) F(plan_freeze) F(plan_free) F(plan_bytes) \
    F(context_create) F(context_free) F(context_bytes) F(context_bind) F(context_random) F(context_forward) \
    F(context_backward) F(context_train) \
    F(update_apply) F(gradient_norm) F(gradient_scale) F(penalty) F(soft_threshold) F(average_apply) \
    F(fill_uniform) F(fill_normal) F(view_is_dense) F(view_import) \
    F(graph_create_with) F(graph_name) F(graph_describe) F(plan_single) F(plan_num_inputs) F(plan_num_outputs) \
    F(plan_input) F(plan_output) F(plan_find) F(plan_shape) F(plan_dtype) F(plan_name) F(plan_description) \
    F(plan_save) F(plan_save_memory) F(plan_load) F(plan_load_memory) F(plan_context_bytes) F(context_create_in) \
    F(context_set_executor)

/* The type of a function, from its declaration in cnn_core.h. */
#ifdef __cplusplus
#define CNN_API_TYPE(name) decltype(::cnn_##name)
#else
#define CNN_API_TYPE(name) __typeof__(cnn_##name)
#endif
#define CNN_API_MEMBER(name) CNN_API_TYPE(name) *name;

typedef struct cnn_api {
    uint32_t struct_size; /* of the core that runs: newer ones have more functions */
    int32_t abi;          /* its CNN_ABI_VERSION */
    CNN_API_FUNCTIONS(CNN_API_MEMBER)
} cnn_api;

#define CNN_API_CAPSULE "pycnn._core._C_API"

#ifndef CNN_CORE_LINKED

static const cnn_api *cnn_api_table; /* NULL before import_cnn_core() */

/* 0, or -1 with a Python exception: ImportError where the core that is installed has not what this was compiled for. */
static inline int import_cnn_core(void)
{
    const cnn_api *api = (const cnn_api *)PyCapsule_Import(CNN_API_CAPSULE, 0);
    if (api == NULL) return -1;
    if (api->abi != CNN_ABI_VERSION) {
        PyErr_Format(PyExc_ImportError, "the installed pycnn has version %d of the core's binary interface, expected %d",
                     (int)api->abi, CNN_ABI_VERSION);
        return -1;
    }
    if (api->struct_size < sizeof(cnn_api)) {
        PyErr_SetString(PyExc_ImportError, "the installed pycnn is older than the one that this module was compiled for");
        return -1;
    }
    cnn_api_table = api;
    return 0;
}

#define cnn_last_error cnn_api_table->last_error
#define cnn_version cnn_api_table->version
#define cnn_abi_version cnn_api_table->abi_version
#define cnn_initialize cnn_api_table->initialize
#define cnn_isa cnn_api_table->isa
#define cnn_available_isas cnn_api_table->available_isas
#define cnn_get_num_threads cnn_api_table->get_num_threads
#define cnn_set_num_threads cnn_api_table->set_num_threads
#define cnn_thread_backend cnn_api_table->thread_backend
#define cnn_graph_create cnn_api_table->graph_create
#define cnn_graph_free cnn_api_table->graph_free
#define cnn_graph_input cnn_api_table->graph_input
#define cnn_graph_parameter cnn_api_table->graph_parameter
#define cnn_graph_state cnn_api_table->graph_state
#define cnn_graph_apply cnn_api_table->graph_apply
#define cnn_graph_output cnn_api_table->graph_output
#define cnn_graph_watch cnn_api_table->graph_watch
#define cnn_graph_require_gradient cnn_api_table->graph_require_gradient
#define cnn_graph_num_values cnn_api_table->graph_num_values
#define cnn_graph_shape cnn_api_table->graph_shape
#define cnn_plan_create cnn_api_table->plan_create
#define cnn_plan_freeze cnn_api_table->plan_freeze
#define cnn_plan_free cnn_api_table->plan_free
#define cnn_plan_bytes cnn_api_table->plan_bytes
#define cnn_context_create cnn_api_table->context_create
#define cnn_context_free cnn_api_table->context_free
#define cnn_context_bytes cnn_api_table->context_bytes
#define cnn_context_bind cnn_api_table->context_bind
#define cnn_context_random cnn_api_table->context_random
#define cnn_context_forward cnn_api_table->context_forward
#define cnn_context_backward cnn_api_table->context_backward
#define cnn_context_train cnn_api_table->context_train
#define cnn_update_apply cnn_api_table->update_apply
#define cnn_gradient_norm cnn_api_table->gradient_norm
#define cnn_gradient_scale cnn_api_table->gradient_scale
#define cnn_penalty cnn_api_table->penalty
#define cnn_soft_threshold cnn_api_table->soft_threshold
#define cnn_average_apply cnn_api_table->average_apply
#define cnn_fill_uniform cnn_api_table->fill_uniform
#define cnn_fill_normal cnn_api_table->fill_normal
#define cnn_view_is_dense cnn_api_table->view_is_dense
#define cnn_view_import cnn_api_table->view_import
#define cnn_graph_create_with cnn_api_table->graph_create_with
#define cnn_graph_name cnn_api_table->graph_name
#define cnn_graph_describe cnn_api_table->graph_describe
#define cnn_plan_single cnn_api_table->plan_single
#define cnn_plan_num_inputs cnn_api_table->plan_num_inputs
#define cnn_plan_num_outputs cnn_api_table->plan_num_outputs
#define cnn_plan_input cnn_api_table->plan_input
#define cnn_plan_output cnn_api_table->plan_output
#define cnn_plan_find cnn_api_table->plan_find
#define cnn_plan_shape cnn_api_table->plan_shape
#define cnn_plan_dtype cnn_api_table->plan_dtype
#define cnn_plan_name cnn_api_table->plan_name
#define cnn_plan_description cnn_api_table->plan_description
#define cnn_plan_save cnn_api_table->plan_save
#define cnn_plan_save_memory cnn_api_table->plan_save_memory
#define cnn_plan_load cnn_api_table->plan_load
#define cnn_plan_load_memory cnn_api_table->plan_load_memory
#define cnn_plan_context_bytes cnn_api_table->plan_context_bytes
#define cnn_context_create_in cnn_api_table->context_create_in
#define cnn_context_set_executor cnn_api_table->context_set_executor

#endif
#endif
