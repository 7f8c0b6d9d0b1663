/* An extension module, limited API, that calls the running core through cnn_api.h. */
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <cnn_api.h>

static PyObject *isa(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return PyUnicode_FromString(cnn_isa());
}

static PyObject *address(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return PyLong_FromVoidPtr((void *)(uintptr_t)cnn_api_table);
}

static PyMethodDef methods[] = {{"isa", isa, METH_NOARGS, NULL}, {"address", address, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "shares_core", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_shares_core(void)
{
    return import_cnn_core() < 0 ? NULL : PyModule_Create(&definition);
}
