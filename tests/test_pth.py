"""State dicts that PyTorch wrote: read to the bit without PyTorch, and nothing else is read or run."""

import contextlib
import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pycnn
from helpers import normal, raises
from pycnn import nn
from pycnn.serialization import read_tensors

# ---- files made by hand, as torch.save makes them --------------------------------------------------------------------


class Named:
    """Pickled as a name alone: of a class, or of a function that is called on reading."""

    def __init__(self, name, arguments=None):
        self.name, self.arguments = name, arguments


class Memory:
    """Pickled as tensor memory is: from outside, by ('storage', kind, key, device, count)."""

    def __init__(self, key, count, kind="FloatStorage"):
        self.identity = ("storage", Named(f"torch {kind}"), key, "cpu", count)


class Pickler(pickle._Pickler):
    """Python's own, taught to write names of things that are not there."""

    def persistent_id(self, item):
        return item.identity if isinstance(item, Memory) else None

    def save(self, item, **options):
        if isinstance(item, Named):
            self.write(b"c" + "\n".join(item.name.split(" ")).encode() + b"\n")
            if item.arguments is not None:
                super().save(item.arguments)
                self.write(b"R")
            return
        super().save(item, **options)


def pickled(item):
    file = io.BytesIO()
    Pickler(file, 2).dump(item)
    return file.getvalue()


def tensor(memory, offset, size, stride):
    return Named("torch._utils _rebuild_tensor_v2", (memory, offset, size, stride, False, OrderedDict()))


def archive(path, content, memories, compression=zipfile.ZIP_STORED, **more):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", content if isinstance(content, bytes) else pickled(content))
        for name, data in {**more, **{f"data/{key}": value for key, value in memories.items()}}.items():
            file.writestr(f"archive/{name}", data)
    return path


def linear_state():
    weight, bias = normal((2, 3)), normal(2, seed=1)
    memories = {"0": weight.astype("<f4").tobytes(), "1": bias.astype("<f4").tobytes()}
    state = OrderedDict(
        weight=tensor(Memory("0", 6), 0, (2, 3), (3, 1)), bias=tensor(Memory("1", 2), 0, (2,), (1,))
    )
    return state, memories, {"weight": weight, "bias": bias}


def assert_read(path, expected):
    found = read_tensors(path)
    assert [*found] == [*expected]
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_state_dict(tmp_path):
    state, memories, expected = linear_state()
    path = archive(tmp_path / "linear.pth", state, memories, byteorder=b"little", version=b"3\n")
    assert_read(path, expected)
    layer = nn.Linear(3, 2)
    assert pycnn.load_weights(layer, path) == ([], [])
    np.testing.assert_array_equal(layer.weight.data, expected["weight"])
    checkpoint = {"epoch": 3, "best": 0.5, "state_dict": state, "args": [None, True, (1, "x")]}
    assert_read(archive(tmp_path / "checkpoint.pt", checkpoint, memories), expected)


def test_types_of_elements(tmp_path):
    values = np.array([1.5, -2.25, 65504.0], np.float32)
    counts = np.array([2**40, -3], np.int64)
    memories = {
        "half": values.astype("<f2").tobytes(),
        "brain": (np.array([1.5, -2.25, np.inf], np.float32).view(np.uint32) >> 16).astype("<u2").tobytes(),
        "counts": counts.astype("<i8").tobytes(),
        "flags": b"\1\0",
    }
    state = {
        "half": tensor(Memory("half", 3, "HalfStorage"), 0, (3,), (1,)),
        "brain": tensor(Memory("brain", 3, "BFloat16Storage"), 0, (3,), (1,)),
        "counts": tensor(Memory("counts", 2, "LongStorage"), 0, (2,), (1,)),
        "flags": tensor(Memory("flags", 2, "BoolStorage"), 0, (2,), (1,)),
    }
    expected = {
        "half": values,
        "brain": np.array([1.5, -2.25, np.inf], np.float32),
        "counts": counts,
        "flags": np.array([True, False]),
    }
    assert_read(archive(tmp_path / "types.pth", state, memories), expected)


def test_the_other_byte_order(tmp_path):
    values = normal(4)
    path = tmp_path / "big.pth"
    archive(path, {"x": tensor(Memory("0", 4), 0, (4,), (1,))}, {"0": values.astype(">f4").tobytes()}, byteorder=b"big")
    assert_read(path, {"x": values})


def test_views_share_memory(tmp_path):
    values = np.arange(24, dtype=np.float32)
    memory = Memory("0", 24)
    state = {
        "rows": tensor(memory, 0, (4, 6), (6, 1)),
        "transposed": tensor(memory, 0, (6, 4), (1, 6)),
        "part": tensor(memory, 7, (2, 3), (12, 2)),
        "repeated": tensor(memory, 5, (3, 2), (0, 1)),
        "number": tensor(memory, 23, (), ()),
        "empty": tensor(memory, 24, (0, 3), (3, 1)),
    }
    expected = {
        "rows": values.reshape(4, 6),
        "transposed": values.reshape(4, 6).T,
        "part": np.array([[7, 9, 11], [19, 21, 23]], np.float32),
        "repeated": np.array([[5, 6]] * 3, np.float32),
        "number": np.float32(23),
        "empty": np.zeros((0, 3), np.float32),
    }
    assert_read(archive(tmp_path / "views.pth", state, {"0": values.tobytes()}), expected)


# ---- refused ---------------------------------------------------------------------------------------------------------

OUT_OF_BOUNDS = {
    "too long": (0, (5,), (1,)),
    "offset": (1, (2, 2), (2, 1)),
    "stride": (0, (2, 2), (3, 1)),
    "negative offset": (-1, (2,), (1,)),
    "negative stride": (3, (2,), (-1,)),
    "negative size": (0, (-1, -4), (1, 1)),
    "more sizes than strides": (0, (2, 2), (1,)),
    "overflow": (0, (2**62, 4), (4, 1)),
    "no integer": (0, (2.0,), (1,)),
    "a truth value": (True, (1,), (1,)),
    "beyond any memory": (2**100, (1,), (1,)),
    "beyond any array": (0, (2**62, 2**62), (0, 0)),
}


@pytest.mark.parametrize("name", OUT_OF_BOUNDS)
def test_tensors_outside_their_memory(tmp_path, name):
    state = {"x": tensor(Memory("0", 4), *OUT_OF_BOUNDS[name])}
    with raises(pycnn.FormatError, "bad.pth"):
        read_tensors(archive(tmp_path / "bad.pth", state, {"0": bytes(16)}))


MALICIOUS = {
    "a command": (Named("posix system", ("touch /tmp/never",)), "posix.system"),
    "eval": ({"x": Named("builtins eval", ("1",))}, "builtins.eval"),
    "an object of its own": (Named("torchvision.models.resnet ResNet", ()), "torchvision.models.resnet.ResNet"),
    "a function as a value": ({"x": Named("os getcwd")}, "os.getcwd"),
    "a name below an allowed one": (Named("collections OrderedDict.__init__.__globals__"), "collections"),
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_what_a_pickle_asks_for_is_refused_by_name(tmp_path, name):
    content, word = MALICIOUS[name]
    with raises(pycnn.FormatError, "bad.pth", word, "refused"):
        read_tensors(archive(tmp_path / "bad.pth", content, {}))


INSTRUCTIONS = {
    "INST": b"(iposix\nsystem\n.",
    "OBJ": b"(cos\nsystem\no.",
    "NEWOBJ": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "EXT1": b"\x80\x02\x82\x01.",
    "PERSID": b"Pname\n.",
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_other_instructions_are_refused(tmp_path, name):
    with raises(pycnn.FormatError, "bad.pth"):
        read_tensors(archive(tmp_path / "bad.pth", INSTRUCTIONS[name], {}))


STATE = {"x": tensor(Memory("0", 4), 0, (4,), (1,))}
DAMAGED = {
    "a list": ([1, 2], {}),
    "a number": (3, {}),
    "values that are no tensors": ({"epoch": 3}, {}),
    "names that are no texts": ({1: STATE["x"]}, {"0": bytes(16)}),
    "keys that are tuples": ({(1, 2): 3}, {}),
    "no memory": (STATE, {}),
    "memory cut short": (STATE, {"0": bytes(15)}),
    "too much memory": (STATE, {"0": bytes(20)}),
    "a negative count": ({"x": tensor(Memory("0", -4), 0, (4,), (1,))}, {"0": bytes(16)}),
    "memory that is described in two ways": ({**STATE, "y": tensor(Memory("0", 3), 0, (3,), (1,))}, {"0": bytes(16)}),
    "a tensor of no memory": ({"x": tensor("0", 0, (4,), (1,))}, {"0": bytes(16)}),
    "no pickle": (b"nothing", {}),
    "an empty pickle": (b"", {}),
    "a pickle that takes from an empty stack": (b"\x80\x02R.", {}),
    "a pickle without an end": (b"\x80\x02}", {}),
    "a call of a dict": (b"\x80\x02})R.", {}),
    "items of a text": (b"\x80\x02X\x01\0\0\0aK\x01K\x02s.", {}),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_archives(tmp_path, name):
    content, memories = DAMAGED[name]
    layer = nn.Linear(2, 2)
    before = layer.state_dict()
    with raises(pycnn.FormatError, "bad.pth"):
        pycnn.load_weights(layer, archive(tmp_path / "bad.pth", content, memories))
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_files_of_another_kind(tmp_path):
    path = tmp_path / "bad.pth"
    for content in (b"", b"PK", b"\x80\x02}.", bytes(1000)):
        path.write_bytes(content)
        with raises(pycnn.FormatError, "bad.pth"):
            read_tensors(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "no network")
    with raises(pycnn.FormatError, "bad.pth", "data.pkl"):
        read_tensors(path)
    state, memories, _ = linear_state()
    with raises(pycnn.FormatError, "bad.pth", "compressed"):
        read_tensors(archive(path, state, memories, zipfile.ZIP_DEFLATED))
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "absent.pth")
    with raises(ValueError, "path", "weights.h5", ".pth"):
        read_tensors("weights.h5")


def test_an_archive_that_begins_before_its_start(tmp_path):
    state, memories, _ = linear_state()
    path = archive(tmp_path / "bad.pth", state, memories)
    content = bytearray(path.read_bytes())
    content[-6] += 1  # where the directory begins: one byte later, and all files one earlier
    path.write_bytes(content)
    with raises(pycnn.FormatError, "bad.pth"):
        read_tensors(path)


@given(st.data())
def test_no_damage_goes_further_than_a_format_error(tmp_path_factory, data):
    state, memories, _ = linear_state()
    path = archive(tmp_path_factory.mktemp("damage") / "bad.pth", state, memories)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found = read_tensors(path)
    except pycnn.FormatError:
        return
    assert all(isinstance(value, np.ndarray) for value in found.values())


@given(st.binary(max_size=60))
def test_no_pickle_goes_further_than_a_format_error(tmp_path_factory, code):
    path = tmp_path_factory.mktemp("pickle") / "bad.pth"
    with contextlib.suppress(pycnn.FormatError):
        assert read_tensors(archive(path, b"\x80\x02" + code, {})) == {}


# ---- files that PyTorch writes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["archive", "archive, protocol 4", "before 1.6"])
def test_what_pytorch_writes(tmp_path, form):
    torch = pytest.importorskip("torch")
    options = {
        "archive": {},
        "archive, protocol 4": {"pickle_protocol": 4},
        "before 1.6": {"_use_new_zipfile_serialization": False},
    }[form]
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.PReLU())
    state = model.state_dict()
    base = torch.arange(12.0)
    state.update(
        transposed=base.reshape(3, 4).T,
        part=base[5:9],
        expanded=torch.ones(1).expand(4),
        parameter=torch.nn.Parameter(torch.randn(2, 2)),
        half=torch.randn(3).half(),
        brain=torch.randn(3).bfloat16(),
        double=torch.randn(3).double(),
        bytes=torch.arange(3).byte(),
        flags=torch.tensor([True, False]),
        nothing=torch.zeros(0, 3),
    )
    path = tmp_path / "model.pth"
    torch.save(state, path, **options)
    found = read_tensors(path)
    assert [*found] == [*state]
    for name, value in state.items():
        value = value.detach()
        want = (value.float() if value.dtype in (torch.half, torch.bfloat16) else value).numpy()
        assert found[name].dtype == want.dtype, name
        np.testing.assert_array_equal(found[name], want, err_msg=name)
    torch.save(model.state_dict(), path, **options)
    ours = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.PReLU())
    assert pycnn.load_weights(ours, path) == ([], [])
    x = normal((2, 2, 5, 5))
    want = model.eval()(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(ours.eval()(x), want, rtol=1e-4, atol=1e-6)

    content = path.read_bytes()
    for keep in (0.1, 0.5, 0.95):
        path.write_bytes(content[: int(keep * len(content))])
        with raises(pycnn.FormatError, "model.pth"):
            read_tensors(path)
    torch.save(model, path, **options)
    with raises(pycnn.FormatError, "model.pth", "refused", "state_dict"):
        read_tensors(path)


def test_old_files_by_hand(tmp_path):
    """Magic number, protocol, machine, tensors, keys, then count and memory of each."""
    state, memories, expected = linear_state()
    for tensor_ in state.values():
        memory = tensor_.arguments[0]
        memory.identity = (*memory.identity, None)
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "protocol_version": 1001}, state, ["0", "1"]]
    content = b"".join(map(pickled, parts))
    for key, count in (("0", 6), ("1", 2)):
        content += struct.pack("<q", count) + memories[key]
    path = tmp_path / "old.pth"
    path.write_bytes(content)
    assert_read(path, expected)
    path.write_bytes(content.replace(pickled(1001), pickled(1002)))
    with raises(pycnn.FormatError, "old.pth", "1002", "1001"):
        read_tensors(path)
    path.write_bytes(content.replace(struct.pack("<q", 6), struct.pack("<q", 2**40)))
    with raises(pycnn.FormatError, "old.pth", "6"):
        read_tensors(path)
