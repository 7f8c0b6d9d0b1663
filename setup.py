"""Builds the C core, each ISA's kernels with their own flags, and the Cython extension pycnn._core around it.

The core goes into the package a second time for programs without Python: as a static library, with its header and the
files by which pkg-config and CMake find it. All metadata but the version stands in pyproject.toml. The environment
steers a build:

    CC=clang               the compiler; on Windows it is clang-cl, which must be on the PATH
    PYCNN_WERROR=1         compile the core with every warning an error, as CI does
    PYCNN_SANITIZE=LIST    -fsanitize=LIST for core and extension, with the core's asserts on
"""

import os
import platform
import re
import shutil
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
INCLUDE_DIRS = [str(CORE / "include"), str(CORE), "pycnn/include"]
WINDOWS = sys.platform == "win32"
MACOS = sys.platform == "darwin"

# ---- flags: the same as in src/cnn_core/Makefile ---------------------------------------------------------------------

# NaN must propagate and all machines must round alike: no -ffast-math, no contraction. -fstrict-overflow undoes the
# -fwrapv that Python's own flags bring, -g0 their -g, which makes the extension ten times as large.
CORE_FLAGS = [
    "-std=c11",
    "-O2",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
    "-fstrict-overflow",
    "-fvisibility=hidden",
    "-fno-asynchronous-unwind-tables",
    "-g0",
]
# Kernels are vectors already: more versions of their loops would only be larger. Clang lacks the second list's flags.
VECTOR_FLAGS = ["-O3", "-fno-tree-vectorize"]
GCC_VECTOR_FLAGS = [
    "-fno-unswitch-loops",
    "-fno-split-loops",
    "-fno-version-loops-for-strides",
    "-fno-split-paths",
    "-fno-thread-jumps",
    "-fno-caller-saves",
    "-freorder-blocks-algorithm=simple",
    "-fno-align-functions",
    "-fno-align-jumps",
]

# isa/<name>.c: the architecture that it is for, and its flags (docs/isa.md). Scalar is for every one.
ISAS = {
    # Of gcc: a sixth smaller, networks 1 to 3 % slower (docs/isa.md).
    "sse2": (
        "x86_64",
        ["-fno-schedule-insns2", "-fno-align-loops", "-fno-ivopts", "-fno-tree-pre", "-fno-tree-ch"],
    ),
    "avx2": ("x86_64", ["-fno-tree-pre", "-mtune=haswell", "-mavx2", "-mfma", "-mprfchw"]),
    "avx512": (
        "x86_64",
        [
            "-mtune=haswell",
            "-fno-schedule-insns2",
            "-mavx512f",
            "-mavx512vl",
            "-mavx512bw",
            "-mavx512dq",
            "-mfma",
            "-mprfchw",
        ],
    ),
    "neon": ("aarch64", []),
}
# What is there to say what the words mean (scalar, beside another ISA), and what decides no time, is made small.
SMALL_FLAGS = ["-Os"]
SMALL_FOLDERS = {"graph", "io", "ref"}
SMALL_FILES = {"ops/conv.c", "ops/batch_norm.c"}
NOT_SMALL = {"ref/conv.c", "ref/linear.c"}  # the products of float64
EXTENSION_FLAGS = ["-Os", "-fvisibility=hidden", "-fno-asynchronous-unwind-tables", "-g0"]
WARNING_FLAGS = ["-Wall", "-Wextra", "-Wconversion", "-Wdouble-promotion", "-Wstrict-prototypes", "-Werror"]
SANITIZE_FLAGS = ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", "-UNDEBUG"]

# cnn_core.h marks its functions for export, but the extension exports PyInit__core alone.
EXPORT_FLAG = "-Wl,-exported_symbol,_PyInit__core" if MACOS else "-Wl,--exclude-libs,ALL"

# ----------------------------------------------------------------------------------------------------------------------

# Free-threaded Pythons have no limited API.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")

# A universal Python would compile each file for two architectures at once, with the flags of one.
if sysconfig.get_platform().endswith("universal2"):
    os.environ.setdefault("ARCHFLAGS", f"-arch {platform.machine()}")
    os.environ["_PYTHON_HOST_PLATFORM"] = sysconfig.get_platform().replace("universal2", platform.machine())
MACHINE = sysconfig.get_platform().rpartition("-")[2]
ARCHITECTURE = {"amd64": "x86_64", "arm64": "aarch64"}.get(MACHINE, MACHINE)


def core_version() -> str:
    """The project's version, which has one home: cnn_version()."""
    text = (CORE / "base/version.c").read_text(encoding="utf-8")
    return re.search(r'return "([^"]+)"', text)[1]


class BuildExt(build_ext):
    """build_ext that first compiles the core into a static library, each file with its own flags."""

    def initialize_options(self):
        super().initialize_options()
        self.cython_c_in_temp = True

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            self.use_clang_cl()
        threads = [] if WINDOWS else ["-fopenmp" if self.takes(["-fopenmp"], "#include <omp.h>\n") else "-pthread"]
        sanitizers = os.environ.get("PYCNN_SANITIZE")
        sanitize = [f"-fsanitize={sanitizers}", *SANITIZE_FLAGS] if sanitizers else []
        warnings = WARNING_FLAGS if os.environ.get("PYCNN_WERROR") == "1" else []
        library = self.build_core([*threads, *warnings, *sanitize])
        self.add_to_package(self.public_library(library), [] if WINDOWS else [*threads, "-lm"])
        for extension in self.extensions:
            extension.extra_objects.append(library)
            extension.depends.append(library)
            extension.extra_compile_args += self.spell([*EXTENSION_FLAGS, *sanitize])
            if not WINDOWS:
                extension.extra_link_args += [EXPORT_FLAG, *threads, "-lm", *sanitize]
        super().build_extensions()

    def use_clang_cl(self):
        """The core is C11 for gcc and clang; clang-cl is clang with the command line of Microsoft's compiler."""
        self.compiler.initialize()
        self.compiler.cc = shutil.which(os.environ.get("CC", "clang-cl"))
        if self.compiler.cc is None:
            raise PlatformError("pycnn is compiled by clang-cl on Windows, which is not on the PATH; LLVM brings it")

    def spell(self, flags: list[str]) -> list[str]:
        """Flags of gcc and clang as the compiler at hand reads them."""
        return [f"/clang:{flag}" for flag in flags] if self.compiler.compiler_type == "msvc" else flags

    def takes(self, flags: list[str], text: str = "") -> bool:
        """Whether a library of the source `text` can be made with the flags."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(f"{text}int probe;\n", encoding="utf-8")
            flags = self.spell(["-Werror", *flags])
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=flags)
                if text:
                    self.compiler.link_shared_object(objects, f"{folder}/probe", extra_postargs=flags)
            except (CompileError, LinkError):
                return False
        return True

    def isa_flags(self) -> dict[Path, list[str]]:
        """The files of isa/ that are for the architecture that is built for, and the flags of each."""
        gcc = self.takes(GCC_VECTOR_FLAGS)
        vector = [*VECTOR_FLAGS, *(GCC_VECTOR_FLAGS if gcc else [])]
        flags_of = {
            CORE / f"isa/{name}.c": [*vector, *(flag for flag in flags if gcc or flag.startswith("-m"))]
            for name, (wanted, flags) in ISAS.items()
            if wanted == ARCHITECTURE
        }
        return {CORE / "isa/scalar.c": SMALL_FLAGS if flags_of else []} | flags_of

    def build_core(self, flags: list[str]) -> str:
        """Compiles what changed, several files at a time, and returns the path of the static library."""
        folder = Path(self.build_temp, "cnn_core")
        isas = self.isa_flags()
        macros = [(f"CNN_HAVE_{source.stem.upper()}", "1") for source in sorted(isas)]
        common_flags = [*CORE_FLAGS, *([] if WINDOWS else ["-fPIC"])]
        flags_of = {source: self.spell([*common_flags, *own, *flags]) for source, own in isas.items()}
        for source in CORE.rglob("*.c"):
            if {"isa", "tests"}.isdisjoint(source.parts):
                name = source.relative_to(CORE).as_posix()
                small = name in SMALL_FILES or (source.parent.name in SMALL_FOLDERS and name not in NOT_SMALL)
                own = SMALL_FLAGS if small else []
                flags_of[source] = self.spell([*common_flags, *own, *flags])

        # Everything is stale when a header or a flag changed; the stamp holds the flags.
        stamp = folder / "flags"
        compiler = getattr(self.compiler, "compiler_so", None) or self.compiler.cc
        text = "\n".join([str(compiler), str(macros), *sorted(map(str, flags_of.items()))])
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != text:
            folder.mkdir(parents=True, exist_ok=True)
            stamp.write_text(text, encoding="utf-8")
        common = [str(stamp), *map(str, CORE.rglob("*.h")), *map(str, CORE.rglob("*.inc"))]

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
        return self.archive([str(stamp), *objects], objects, folder)

    def archive(self, made_of: list[str], objects: list[str], folder: Path) -> str:
        """Puts objects into a static library, anew if it is older than what it is made of."""
        library = folder / self.compiler.library_filename("cnn_core")
        if newer_group(made_of, str(library)):
            library.unlink(missing_ok=True)  # ar would keep the objects of sources that are gone
            self.compiler.create_static_lib(objects, "cnn_core", output_dir=str(folder))
        return str(library)

    def public_library(self, library: str) -> str:
        """The library for others. On Linux it is one object, in which all that is not public is local: no name of it
        can clash with one of theirs, and it is smaller."""
        if sys.platform != "linux":
            return library
        folder = Path(self.build_temp, "public")
        folder.mkdir(exist_ok=True)
        target = folder / "cnn_core.o"
        whole = ["-Wl,--whole-archive", library, "-Wl,--no-whole-archive"]
        self.spawn([*self.compiler.linker_exe, "-r", "-nostdlib", *whole, "-o", str(target)])
        self.spawn([os.environ.get("OBJCOPY", "objcopy"), "--localize-hidden", "--strip-unneeded", str(target)])
        return self.archive([str(target)], [str(target)], folder)

    def add_to_package(self, library: str, libs: list[str]):
        """Puts header, library, pkg-config file and CMake package beside the extension; the library needs `libs`."""
        package = Path() if self.inplace else Path(self.build_lib)
        values = {"VERSION": core_version(), "LIBRARY": Path(library).name, "LIBS": " ".join(libs)}
        for source, folder in {
            library: "pycnn/lib",
            CORE / "include/cnn_core.h": "pycnn/include",
            CORE / "cnn_core.pc.in": "pycnn/lib/pkgconfig",
            CORE / "cnn_core-config.cmake.in": "pycnn/lib/cmake/cnn_core",
            CORE / "cnn_core-config-version.cmake.in": "pycnn/lib/cmake/cnn_core",
        }.items():
            target = package / folder / Path(source).name.removesuffix(".in")
            target.parent.mkdir(parents=True, exist_ok=True)
            if Path(source).suffix == ".in":
                text = Path(source).read_text(encoding="utf-8")
                target.write_text(re.sub(r"@(\w+)@", lambda name: values[name[1]], text), encoding="utf-8")
            else:
                shutil.copyfile(source, target)


setup(
    version=core_version(),
    ext_modules=[
        Extension(
            "pycnn._core",
            ["pycnn/_core.pyx"],
            depends=sorted([*glob("pycnn/*.px[di]"), *glob("pycnn/include/*.h")]),
            include_dirs=INCLUDE_DIRS,
            define_macros=[("CNN_CORE_LINKED", "1"), *([("Py_LIMITED_API", "0x030B0000")] if LIMITED_API else [])],
            py_limited_api=LIMITED_API,
        )
    ],
    cmdclass={"build_ext": BuildExt},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {},
)
