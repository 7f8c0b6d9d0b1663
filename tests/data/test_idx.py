import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycnn.data import read_idx, write_idx
from pycnn.errors import FormatError

DTYPES = ["uint8", "int8", "int16", "int32", "float32", "float64"]
# 0x08: uint8, two dimensions, 2 x 3
SMALL = b"\0\0\x08\x02" + struct.pack(">II", 2, 3) + bytes(range(6))


@pytest.mark.parametrize("name", ["a.idx", "a.gz"])
@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4, 5), (0,), (3, 0, 2)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_round_trip(tmp_path, dtype, shape, name):
    array = np.random.default_rng(0).integers(-128, 128, shape).astype(dtype)
    write_idx(tmp_path / name, array)
    got = read_idx(tmp_path / name)
    assert got.dtype == array.dtype and got.dtype.isnative and got.flags.c_contiguous and got.flags.writeable
    np.testing.assert_array_equal(got, array, strict=True)


def test_bytes_on_disk(tmp_path):
    write_idx(tmp_path / "a", np.arange(6, dtype=np.uint8).reshape(2, 3))
    assert (tmp_path / "a").read_bytes() == SMALL
    write_idx(tmp_path / "b", np.array([1, -2], np.int16))
    assert (tmp_path / "b").read_bytes() == b"\0\0\x0b\x01\0\0\0\x02\0\x01\xff\xfe"


def test_non_contiguous_and_byte_swapped_arrays_are_written_by_value(tmp_path):
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    for given_array in (array[::-1, ::2], array.astype(">i4")):
        write_idx(tmp_path / "a", given_array)
        np.testing.assert_array_equal(read_idx(tmp_path / "a"), given_array)


def test_gzip_is_told_by_content_not_by_name(tmp_path):
    (tmp_path / "plain.gz").write_bytes(SMALL)
    (tmp_path / "zipped").write_bytes(gzip.compress(SMALL))
    np.testing.assert_array_equal(read_idx(tmp_path / "plain.gz"), [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(read_idx(str(tmp_path / "zipped")), [[0, 1, 2], [3, 4, 5]])


def test_gzip_bytes_depend_on_the_array_alone(tmp_path):
    for name in ("one.gz", "two.gz"):
        write_idx(tmp_path / name, np.arange(5, dtype=np.uint8))
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (b"PNG\x89", "not an IDX file"),
        (b"\0\0\x07\x01\0\0\0\0", "type code is 0x07, wanted one of 0x08"),
        (b"\0\0\x08\0", "0 dimensions"),
        (SMALL[:9], "truncated: 5 bytes of dimensions, wanted 8"),
        (SMALL[:-1], r"truncated: 5 bytes of data, wanted 6 for shape \(2, 3\)"),
        (SMALL + b"x", "bytes follow the 6 bytes"),
        (b"\0\0\x0e\x03" + b"\xff" * 12 + b"\0" * 100, "truncated: 100 bytes of data"),
        (b"\0\0\x08\x04" + b"\0" * 4 + b"\xff" * 12, "more than an array can have"),
        (b"\0\0\x08\xff" + b"\0\0\0\x01" * 255 + b"\0", "more than an array can have"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_corrupt_files(tmp_path, content, message, pack):
    path = tmp_path / "bad.idx"
    path.write_bytes(pack(content))
    with pytest.raises(FormatError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_every_damage_to_gzip_is_found(tmp_path):
    path = tmp_path / "a.gz"
    whole = gzip.compress(SMALL, mtime=0)
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(FormatError):
            read_idx(path)
    for at in range(len(whole) - 8, len(whole)):  # the checksum and the length at the end
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(FormatError, match="damaged gzip data"):
            read_idx(path)


@given(st.binary(max_size=40), st.booleans())
def test_any_bytes_give_an_array_or_a_format_error(tmp_path_factory, content, header):
    path = tmp_path_factory.getbasetemp() / "fuzz.idx"
    path.write_bytes((b"\0\0\x08\x01" if header else b"") + content)
    try:
        assert isinstance(read_idx(path), np.ndarray)
    except FormatError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize("dtype", ["bool", "int64", "float16", "complex64"])
def test_write_refuses_dtypes_that_idx_lacks(tmp_path, dtype):
    with pytest.raises(TypeError, match=f"array: got dtype {dtype}, wanted one of uint8"):
        write_idx(tmp_path / "a", np.zeros(3, dtype))
    assert not (tmp_path / "a").exists()


def test_write_refuses_scalars(tmp_path):
    with pytest.raises(ValueError, match=r"array: got shape \(\)"):
        write_idx(tmp_path / "a", np.float32(1))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "none")
