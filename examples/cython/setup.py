from Cython.Build import cythonize
from setuptools import Extension, setup

import pycnn

setup(
    name="search",
    ext_modules=cythonize([Extension("search", ["search.pyx"], include_dirs=[pycnn.get_include()])]),
)
