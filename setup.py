"""Builds the C core, each ISA's kernels with their own flags, and the Cython extension pycnn._core around it.

All metadata but the version stands in pyproject.toml. The environment steers a build:

    PYCNN_WERROR=1         compile the core with every warning an error, as CI does
    PYCNN_SANITIZE=LIST    -fsanitize=LIST for core and extension, with the core's asserts on
"""

import os
import re
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, PlatformError
from setuptools.modified import newer_group

CORE = Path("src/cnn_core")
INCLUDE_DIRS = [str(CORE / "include"), str(CORE)]

# isa/<name>.c: the architecture that it is for (None: every one) and its flags, as in src/cnn_core/Makefile.
ISAS = {
    "scalar": (None, []),
    "sse2": ("x86_64", []),
    "avx2": ("x86_64", ["-mavx2", "-mfma"]),
    "avx512": ("x86_64", ["-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma"]),
    "neon": ("aarch64", []),
}
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}

# Flags of gcc and clang, the same as in the Makefile. NaN must propagate and all machines must round alike:
# no -ffast-math, no contraction. -fstrict-overflow undoes the -fwrapv that Python's own flags bring, -g0 their -g,
# which makes the extension ten times as large.
CORE_FLAGS = [
    "-std=c11",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
    "-fstrict-overflow",
    "-fvisibility=hidden",
    "-fPIC",
    "-g0",
]
WARNING_FLAGS = ["-Wall", "-Wextra", "-Wconversion", "-Wdouble-promotion", "-Wstrict-prototypes", "-Werror"]
SANITIZE_FLAGS = ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", "-UNDEBUG"]

# cnn_core.h marks its functions for export, but the extension exports PyInit__core alone.
EXPORT_FLAG = "-Wl,-exported_symbol,_PyInit__core" if sys.platform == "darwin" else "-Wl,--exclude-libs,ALL"

# Free-threaded Pythons have no limited API.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")


def core_version() -> str:
    """The project's version, which has one home: cnn_version()."""
    text = (CORE / "base/version.c").read_text(encoding="utf-8")
    return re.search(r'return "([^"]+)"', text)[1]


def isa_flags() -> dict[Path, list[str]]:
    """The files of isa/ that are for the architecture that is built for, and the flags of each."""
    machine = sysconfig.get_platform().rpartition("-")[2]
    architecture = ARCHITECTURES.get(machine, machine)
    rows = {source: ISAS[source.stem] for source in CORE.glob("isa/*.c")}
    return {source: flags for source, (wanted, flags) in rows.items() if wanted in (None, architecture)}


class BuildExt(build_ext):
    """build_ext that first compiles the core into a static library, each file with its own flags."""

    def initialize_options(self):
        super().initialize_options()
        self.cython_c_in_temp = True
        self.cython_directives = {"language_level": 3, "binding": True, "embedsignature": True}

    def build_extensions(self):
        if self.compiler.compiler_type != "unix":
            kind = self.compiler.compiler_type
            raise PlatformError(f"pycnn builds with gcc and clang; setup.py has no flags for {kind!r}")
        openmp = ["-fopenmp"] if self.has_openmp() else []
        sanitizers = os.environ.get("PYCNN_SANITIZE")
        sanitize = [f"-fsanitize={sanitizers}", *SANITIZE_FLAGS] if sanitizers else []
        warnings = WARNING_FLAGS if os.environ.get("PYCNN_WERROR") == "1" else []
        library = self.build_core([*CORE_FLAGS, *openmp, *warnings, *sanitize])
        for extension in self.extensions:
            extension.extra_objects.append(library)
            extension.depends.append(library)
            extension.extra_compile_args += sanitize
            extension.extra_link_args += [EXPORT_FLAG, *openmp, *sanitize]
        super().build_extensions()

    def has_openmp(self) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "openmp.c")
            source.write_text("#include <omp.h>\nint threads(void) { return omp_get_max_threads(); }\n")
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=["-fopenmp"])
                self.compiler.link_shared_object(objects, f"{folder}/openmp.so", extra_postargs=["-fopenmp"])
            except (CompileError, LinkError):
                self.warn("the compiler has no OpenMP: pycnn will run on one thread")
                return False
        return True

    def build_core(self, flags: list[str]) -> str:
        """Compiles what changed, several files at a time, and returns the path of the static library."""
        folder = Path(self.build_temp, "cnn_core")
        isas = isa_flags()
        macros = [(f"CNN_HAVE_{source.stem.upper()}", "1") for source in sorted(isas)]
        flags_of = {source: [*flags, *own] for source, own in isas.items()}
        for source in CORE.rglob("*.c"):
            if {"isa", "tests"}.isdisjoint(source.parts):
                flags_of[source] = flags

        # Everything is stale when a header or a flag changed; the stamp holds the flags.
        stamp = folder / "flags"
        text = "\n".join([str(self.compiler.compiler_so), str(macros), *sorted(map(str, flags_of.items()))])
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != text:
            folder.mkdir(parents=True, exist_ok=True)
            stamp.write_text(text, encoding="utf-8")
        common = [str(stamp), *map(str, CORE.rglob("*.h"))]

        def compile_source(source: Path) -> str:
            [target] = self.compiler.object_filenames([str(source)], output_dir=str(folder))
            if newer_group([str(source), *common], target):
                self.compiler.compile(
                    [str(source)],
                    output_dir=str(folder),
                    macros=macros,
                    include_dirs=INCLUDE_DIRS,
                    extra_postargs=flags_of[source],
                )
            return target

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_source, sorted(flags_of)))
        library = folder / self.compiler.library_filename("cnn_core")
        if newer_group([str(stamp), *objects], str(library)):
            library.unlink(missing_ok=True)  # ar would keep the objects of sources that are gone
            self.compiler.create_static_lib(objects, "cnn_core", output_dir=str(folder))
        return str(library)


setup(
    version=core_version(),
    ext_modules=[
        Extension(
            "pycnn._core",
            ["pycnn/_core.pyx"],
            depends=sorted(glob("pycnn/*.px[di]")),
            include_dirs=INCLUDE_DIRS,
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if LIMITED_API else [],
            libraries=["m"],
            extra_compile_args=["-fvisibility=hidden", "-g0"],
            py_limited_api=LIMITED_API,
        )
    ],
    cmdclass={"build_ext": BuildExt},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {},
)
