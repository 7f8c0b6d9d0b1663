"""What a compiled network takes: one copy of each weight, and little beside the largest two results."""

import json
import subprocess
import sys

import numpy as np
import pytest

import pycnn
from pycnn import models, random


@pytest.fixture(scope="module")
def resnet50():
    with random.seeded(0):
        return models.resnet50()


def largest_results(model, shape):
    """Bytes of the two largest results of a layer."""
    tracer, _ = model.trace((shape,), "float32")
    sizes = sorted(4 * int(np.prod(tracer.graph.shape(value))) for value in tracer.graph.sources)
    return sizes[-1] + sizes[-2]


def test_a_final_plan_has_one_copy_of_each_weight(resnet50, tmp_path):
    shape = (1, 3, 64, 64)
    plan, final = pycnn.compile(resnet50, shape), pycnn.compile(resnet50, shape, final=True)
    x = np.ones(shape, np.float32)
    assert np.array_equal(final(x), plan(x))
    plan.save(tmp_path / "model.cnn")
    loaded = pycnn.load(tmp_path / "model.cnn", final=True)
    assert np.array_equal(loaded(x), plan(x)) and loaded.memory["constants"] == final.memory["constants"]
    for unsaved in (final, loaded):
        with pytest.raises(RuntimeError, match="final"):
            unsaved.save(tmp_path / "other.cnn")
    # Some layers of 3x3, each of 64 x 64 channels or a multiple, run by Winograd's algorithm, if it is worth it.
    saved = plan.memory["constants"] - final.memory["constants"]
    assert saved % (4 * 9 * 64 * 64) == 0 and saved > (-1 if pycnn.cpu_info()["isa"] == "scalar" else 0)


def test_resnet50_for_one_image(resnet50):
    shape = (1, 3, 224, 224)
    plan = pycnn.compile(resnet50, shape)
    packed = plan.memory["constants"]
    raw = sum(parameter.data.nbytes for parameter in resnet50.parameters())
    assert raw * 0.99 <= packed <= 1.6 * raw  # scale and shift of normalization are gone into weights and bias
    assert plan.memory_bytes == sum(plan.memory.values())
    assert plan.memory_bytes <= 1.15 * (packed + largest_results(resnet50.eval(), shape))


GROWTH = """
import json
import numpy as np
import pycnn

def read(file, field):
    with open("/proc/self/" + file, encoding="ascii") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))

model = pycnn.models.resnet50()
x = np.ones((1, 3, 128, 128), np.float32)
anonymous, resident = read("smaps_rollup", "Anonymous"), read("status", "VmRSS")
plan = pycnn.compile(model, x.shape)
for _ in range(3):
    y = plan(x)
grown, peak = read("smaps_rollup", "Anonymous") - anonymous, read("status", "VmHWM") - resident
print(json.dumps({"said": plan.memory_bytes, "grown": grown, "peak": peak}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self")
def test_a_process_grows_by_what_the_plan_says(tmp_path):
    # elsewhere than in a checkout, whose pycnn would hide the installed one
    done = subprocess.run([sys.executable, "-c", GROWTH], cwd=tmp_path, check=True, capture_output=True, text=True)
    bytes_ = json.loads(done.stdout)
    some = 6 << 20  # the libraries' own: thread stacks, heaps, code that is read for the first time
    assert 0.9 * bytes_["said"] - some <= bytes_["grown"] <= 1.1 * bytes_["said"] + some
    assert bytes_["peak"] <= 1.1 * bytes_["said"] + some  # weights are folded one by one, as they are packed
