"""What others build against: the function table, header, library, pkg-config file, CMake package, `pycnn-config`."""

import ast
import ctypes
import re
import shlex
import sys
import zlib
from importlib.metadata import distribution, entry_points
from pathlib import Path

import numpy as np
import pytest

import pycnn
from building import ROOT, compile_module, config, need, run
from pycnn import _core

INCLUDE = Path(pycnn.get_include())
CAPSULE = b"pycnn._core._C_API"


def functions_of_header() -> list[str]:
    """The public functions, without `cnn_`, in the order of cnn_core.h."""
    return re.findall(r"^CNN_API [^;(]*?\bcnn_(\w+)\(", (INCLUDE / "cnn_core.h").read_text(), re.MULTILINE)


def functions_of_table() -> list[str]:
    """The members of the table, in their order."""
    text = (INCLUDE / "cnn_api.h").read_text()
    listed = re.search(r"#define CNN_API_FUNCTIONS\(F\)(.*?[^\\])\n", text, re.DOTALL)
    return re.findall(r"\bF\((\w+)\)", listed[1])


class Table(ctypes.Structure):
    _fields_ = (("struct_size", ctypes.c_uint32), ("abi", ctypes.c_int32))


def table_address() -> int:
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    return get_pointer(_core._C_API, CAPSULE)


def test_the_table_has_every_public_function_once():
    names = functions_of_table()
    assert len(set(names)) == len(names)
    assert set(names) == set(functions_of_header())


def test_the_table_only_grows_at_its_end():
    released = functions_of_table()[:61]
    assert zlib.crc32(" ".join(released).encode()) == 0xec9d7e5d


def test_every_function_of_the_table_has_its_macro():
    macros = re.findall(r"^#define cnn_(\w+) cnn_api_table->(\w+)$", (INCLUDE / "cnn_api.h").read_text(), re.MULTILINE)
    assert [name for name, member in macros if name == member] == functions_of_table()


def test_cython_declares_every_public_function():
    text = (Path(pycnn.__file__).parent / "_core.pxd").read_text()
    assert set(re.findall(r"\bcnn_(\w+)\(", text)) == set(functions_of_header())


def test_the_running_table_is_full():
    table = Table.from_address(table_address())
    names = functions_of_table()
    assert table.abi == _core.cpu_info()["abi_version"]
    assert table.struct_size == ctypes.sizeof(Table) + len(names) * ctypes.sizeof(ctypes.c_void_p)
    pointers = (ctypes.c_void_p * len(names)).from_address(table_address() + ctypes.sizeof(Table))
    assert all(pointers)
    version = ctypes.CFUNCTYPE(ctypes.c_char_p)(pointers[names.index("version")])
    assert version().decode() == pycnn.__version__


def test_an_extension_in_c_shares_the_core(tmp_path):
    module = compile_module(ROOT / "tests/c/shares_core.c", tmp_path)
    assert module.isa() == pycnn.cpu_info()["isa"]
    assert module.address() == table_address()


@pytest.mark.parametrize(
    ("core", "table", "message"),
    [
        ("#define CNN_ABI_VERSION 999", "", "has version 1 of the core's binary interface, expected 999"),
        ("#define CNN_ABI_VERSION 1", "F(newer)", "is older than the one that this module was compiled for"),
    ],
)
def test_an_extension_for_another_core_is_refused(core, table, message, tmp_path):
    source = (ROOT / "tests/c/shares_core.c").read_text()
    (tmp_path / "shares_core.c").write_text(source.replace("<cnn_api.h>", '"cnn_api.h"'))
    text = (INCLUDE / "cnn_core.h").read_text().replace("#define CNN_ABI_VERSION 1", f"{core}\nvoid cnn_newer(void);")
    (tmp_path / "cnn_core.h").write_text(text)
    last = f"F({functions_of_table()[-1]})"
    (tmp_path / "cnn_api.h").write_text((INCLUDE / "cnn_api.h").read_text().replace(last, f"{last} {table}"))
    with pytest.raises(ImportError, match=message):
        compile_module(tmp_path / "shares_core.c", tmp_path)


def test_a_cython_module_shares_the_core(tmp_path):
    module = compile_module(ROOT / "tests/cython/shares_core.pyx", tmp_path)
    dst = np.empty(1000, np.float32)
    module.uniform(dst, -1, 3)
    assert -1 <= dst.min() < -0.9 and 2.9 < dst.max() < 3
    with pytest.raises(ValueError, match="low"):
        module.uniform(dst, 3, -1)
    threads = pycnn.get_num_threads()
    module.set_num_threads(threads + 1)
    assert pycnn.get_num_threads() == threads + 1
    pycnn.set_num_threads(threads)


def test_what_is_installed():
    library = Path(pycnn.get_library_dir())
    assert INCLUDE.joinpath("cnn_core.h").read_bytes() == (ROOT / "src/cnn_core/include/cnn_core.h").read_bytes()
    assert library.joinpath("libcnn_core.a").stat().st_size > 100_000
    assert Path(pycnn.cmake_dir(), "cnn_core-config.cmake").is_file()
    for text in (library / "pkgconfig/cnn_core.pc", *Path(pycnn.cmake_dir()).iterdir()):
        assert "@" not in text.read_text() and str(library.parent) not in text.read_text(), "filled in, relocatable"


def test_pycnn_config():
    assert config("--includedir") == [pycnn.get_include()]
    assert config("--libdir") == [pycnn.get_library_dir()]
    assert config("--cmakedir") == [pycnn.cmake_dir()]
    assert config("--version") == [pycnn.__version__]
    assert config("--cflags") == [f"-I{pycnn.get_include()}"]
    assert config("--libs")[:2] == [f"-L{pycnn.get_library_dir()}", "-lcnn_core"]
    assert config("--libs")[-1] == "-lm"
    with pytest.raises(AssertionError, match="nothing asked for"):
        config()


def test_pkg_config():
    [pkg_config] = need("pkg-config")
    environment = {"PKG_CONFIG_PATH": f"{pycnn.get_library_dir()}/pkgconfig"}
    said = shlex.split(run(pkg_config, "--cflags", "--libs", "cnn_core", env=environment))
    assert [str(Path(word[:2], Path(word[2:]).resolve())) for word in said[:2]] == [
        str(Path("-I", INCLUDE.resolve())),
        str(Path("-L", Path(pycnn.get_library_dir()).resolve())),
    ]
    assert said[2:] == config("--libs")[1:]
    assert run(pkg_config, "--modversion", "cnn_core", env=environment).strip() == pycnn.__version__


def test_entry_points():
    [pkg_config] = entry_points(group="pkg_config", name="cnn_core")
    folder = Path(str(distribution("pycnn").locate_file(pkg_config.value.replace(".", "/"))))
    assert folder / "cnn_core.pc" == Path(pycnn.get_library_dir(), "pkgconfig/cnn_core.pc")
    [prefix] = entry_points(group="cmake.prefix", name="cnn_core")
    package = Path(prefix.load().__file__).parent
    assert package / "lib/cmake/cnn_core" == Path(pycnn.cmake_dir())


def test_import_loads_little(tmp_path):
    program = "import sys, numpy; before = set(sys.modules); import pycnn; print(*(set(sys.modules) - before))"
    loaded = run(sys.executable, "-c", program, cwd=tmp_path).split()
    heavy = {"PIL", "argparse", "asyncio", "concurrent", "onnx", "safetensors", "sklearn", "tqdm", "urllib"}
    assert "pycnn" in loaded
    assert not heavy & {name.partition(".")[0] for name in loaded}


def test_makefile_and_setup_compile_alike(tmp_path):
    [make] = need("make")
    constants, endings = {}, ("ISAS", "_FLAGS", "_FOLDERS", "_FILES", "NOT_SMALL")
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith(endings):
            constants[ast.unparse(node.targets[0])] = ast.literal_eval(node.value)
    steps = run(make, "--dry-run", "--directory", ROOT / "src/cnn_core", f"BUILD={tmp_path}", "WERROR=1", "CC=gcc")
    commands = {words[words.index("-c") + 1]: words for words in map(shlex.split, steps.splitlines()) if "-c" in words}

    def flags(source: str) -> set[str]:
        left_to_pip = {"-DNDEBUG", "-MMD", "-MP", "-fopenmp", "-pthread"}
        kept = [word for word in commands[source] if re.match(r"-[fmOWs]", word) and word not in left_to_pip]
        levels = [word for word in kept if word.startswith("-O")]
        return {word for word in kept if word not in levels[:-1]}

    common = {*constants["CORE_FLAGS"], *constants["WARNING_FLAGS"], "-fPIC"} - {"-g0"}
    small = (common - {"-O2"}) | {*constants["SMALL_FLAGS"]}
    vector = (common - {"-O2"}) | {*constants["VECTOR_FLAGS"], *constants["GCC_VECTOR_FLAGS"]}
    assert {"isa/scalar.c", "graph/plan.c", "ops/conv.c"} < commands.keys()
    for source in commands:
        folder, name = Path(source).parent.name, Path(source).stem
        if folder == "isa":
            wanted = small if name == "scalar" else vector | {*constants["ISAS"][name][1]}
        else:
            in_small = folder in constants["SMALL_FOLDERS"] and source not in constants["NOT_SMALL"]
            is_small = in_small or source in constants["SMALL_FILES"]
            wanted = small if is_small else common
        assert flags(source) == wanted, source
