# The C core for other Cython modules, by the core that runs inside pycnn:
#
#     from pycnn cimport cnn_core as cnn
#     cnn.import_cnn_core()               # once in each module, before the first call
#
# Functions may be called within `with nogil`. cnn_api.h tells more.
from pycnn._core cimport *
