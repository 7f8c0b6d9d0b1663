"""Compiled plans: the same outputs as the network, from constants of their own."""

import threading

import numpy as np
import pytest

import pycnn
from pycnn import functional as F
from pycnn import nn


class Residual(nn.Module):
    def __init__(self, channels, act=F.relu):
        super().__init__()
        self.act = act
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.down = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)

    def forward(self, x):
        y = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        return self.act(y + self.bn3(self.down(x)))


def settle(model, x, seed=0):
    """Statistics and weights that are not those of a new network."""
    rng = np.random.default_rng(seed)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d)) and module.weight is not None:
            module.weight.data[...] = rng.uniform(0.5, 1.5, module.weight.shape)
            module.bias.data[...] = rng.normal(0, 0.2, module.bias.shape)
    model.train()
    for _ in range(5):
        model(x)
    return model.eval()


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


class Bordered(nn.Module):
    """Reads an array that is no parameter."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return F.pad(self.conv(x), (1, 2, 0, 1), value=0.5) * np.linspace(1, 2, 4, dtype=np.float32)[:, None, None]


NETWORKS = {
    "residual": lambda: Residual(8),
    "residual relu6": lambda: Residual(24, F.relu6),
    "residual silu": lambda: Residual(5, F.silu),
    "wide": lambda: Residual(70),
    "strided": lambda: nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.LeakyReLU(0.1)),
    "depthwise": lambda: nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 8, 5, padding=2, stride=2, groups=8), nn.BatchNorm2d(8), nn.Hardswish(),
    ),
    "grouped": lambda: nn.Sequential(nn.Conv2d(8, 16, 3, groups=4), nn.BatchNorm2d(16), nn.ReLU()),
    "transposed": lambda: nn.Sequential(
        nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2), nn.BatchNorm2d(6), nn.ReLU(),
        nn.ConvTranspose2d(6, 9, 3, padding=1), nn.BatchNorm2d(9), nn.Tanh(),
    ),
    "head": lambda: nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 40), nn.ReLU(), nn.Dropout(0.5), nn.Linear(40, 10)
    ),
    "norm first": lambda: nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.ReLU()),
    "instance": lambda: nn.Sequential(
        nn.Conv2d(8, 8, 1), nn.InstanceNorm2d(8, affine=True, track_running_stats=True), nn.ReLU()
    ),
    "borders": lambda: Bordered(),
    "two norms": lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.GELU()),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n", [1, 3])
def test_same_outputs(name, n):
    pycnn.manual_seed(0)
    model = NETWORKS[name]()
    channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 8)
    x = images(n, channels, 14, 14)
    settle(model, images(4, channels, 14, 14))
    y = model(x)
    for winograd in (True, False):
        plan = pycnn.compile(model, x.shape, winograd=winograd)
        z = plan(x)
        assert z.shape == y.shape and z.dtype == np.float32
        assert np.linalg.norm(z - y) <= 1e-5 * np.linalg.norm(y)
    model.double()
    exact = pycnn.compile(model, x.shape)(x.astype(np.float64))
    assert np.linalg.norm(exact - model(x.astype(np.float64))) <= 1e-12 * np.linalg.norm(exact)
    assert np.linalg.norm(z - exact) <= 1e-5 * np.linalg.norm(exact)


def test_snapshot_and_modes():
    model = settle(Residual(8), images(2, 8, 9, 9))
    model.train()
    x = images(2, 8, 9, 9, seed=1)
    plan = pycnn.compile(model, x.shape)
    assert model.training and model.bn1.training
    before = plan(x)
    for parameter in model.parameters():
        parameter.data[...] = 0
    assert np.array_equal(plan(x), before)
    assert np.any(before)


def test_same_bits_at_any_thread_count():
    model = settle(nn.Sequential(Residual(16), nn.MaxPool2d(2), Residual(16)), images(2, 16, 20, 20))
    x = images(2, 16, 20, 20, seed=1)
    results = [pycnn.compile(model, x.shape, threads=threads)(x) for threads in (1, 2, 3, 4)]
    for result in results[1:]:
        assert np.array_equal(results[0], result)


def test_many_threads_share_a_plan():
    model = settle(Residual(8), images(2, 8, 16, 16))
    plan = pycnn.compile(model, (2, 8, 16, 16))
    inputs = [images(2, 8, 16, 16, seed=seed) for seed in range(6)]
    wanted = [plan(x) for x in inputs]
    wrong = []

    def work(i):
        for _ in range(20):
            if not np.array_equal(plan(inputs[i]), wanted[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


class Several(nn.Module):
    def forward(self, a, b):
        s = F.relu(a + b)
        return s, F.concat([a, b]), a


def test_several_inputs_and_outputs():
    a, b = images(2, 3, 4, 5), images(2, 3, 4, 5, seed=1)
    plan = pycnn.compile(Several(), [a.shape, b.shape])
    s, both, same = plan(a, b)
    assert np.array_equal(s, np.maximum(a + b, 0))
    assert np.array_equal(both, np.concatenate([a, b], axis=1))
    assert np.array_equal(same, a) and same is not a
    assert plan.input_shapes == [(2, 3, 4, 5)] * 2 and plan.output_shapes[1] == (2, 6, 4, 5)


def test_input_layouts():
    model = settle(Residual(8), images(2, 8, 9, 9))
    plan = pycnn.compile(model, (2, 8, 9, 9))
    x = images(2, 8, 9, 9, seed=1)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert np.array_equal(plan(x), plan(last))
    assert np.array_equal(plan(x[::-1])[::-1], plan(x))


def test_memory_counts_everything():
    model = nn.Sequential(nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 1))
    settle(model, images(2, 16, 8, 8))
    plan = pycnn.compile(model, (2, 16, 8, 8))
    memory = plan.memory
    assert plan.memory_bytes == sum(memory.values())
    raw = 4 * (16 * 32 + 32 + 32 * 16 + 16)
    assert raw <= memory["constants"] <= 1.2 * raw + 256
    assert memory["activations"] == 4 * 2 * 8 * 8 * 32  # the middle
    assert memory["arrays"] == 4 * 2 * 8 * 8 * 16  # the input, channels-last; small outputs are not kept
    large = pycnn.compile(model, (2, 16, 64, 64)).memory
    assert large["arrays"] == 4 * 2 * 64 * 64 * (16 + 2 * 16)
    assert 0 < memory["tables"] < 65536 and large["tables"] == memory["tables"]
    assert str(f"{plan.memory_bytes:,}") in repr(plan)


def test_bad_input_is_named():
    model = settle(Residual(8), images(2, 8, 9, 9))
    plan = pycnn.compile(model, (2, 8, 9, 9))
    with pytest.raises(ValueError, match=r"x: got shape \(1, 8, 9, 9\), expected \(2, 8, 9, 9\)"):
        plan(images(1, 8, 9, 9))
    with pytest.raises(TypeError, match="x: got dtype float64"):
        plan(np.zeros((2, 8, 9, 9)))
    with pytest.raises(TypeError, match="x: got dtype >i, expected float32"):
        plan(memoryview(np.zeros((2, 8, 9, 9), ">i4")))  # of which there is a format alone
    with pytest.raises(TypeError, match="got 2 inputs, expected 1"):
        plan(images(2, 8, 9, 9), images(2, 8, 9, 9))
    with pytest.raises(TypeError, match="None"):
        plan(None)
    with pytest.raises(TypeError, match="model: got int"):
        pycnn.compile(3, (1, 8, 9, 9))
    with pytest.raises(TypeError, match="input_shape"):
        pycnn.compile(model, 8)
    with pytest.raises(TypeError, match=r"input_shape: got an array of shape \(1, 8, 9, 9\), expected a shape"):
        pycnn.compile(model, images(1, 8, 9, 9))
    with pytest.raises(TypeError, match="input_shape"):
        pycnn.compile(model, (1, 8.5, 9, 9))
    with pytest.raises(ValueError, match="threads"):
        pycnn.compile(model, (1, 8, 9, 9), threads=0)
    with pytest.raises(ValueError, match="in_channels"):
        pycnn.compile(model, (1, 7, 9, 9))


def test_zero_batch():
    model = settle(Residual(8), images(2, 8, 9, 9))
    plan = pycnn.compile(model, (0, 8, 9, 9))
    assert plan(images(0, 8, 9, 9)).shape == (0, 8, 9, 9)


def test_nan_is_not_swallowed():
    model = settle(Residual(8), images(2, 8, 9, 9))
    x = images(2, 8, 9, 9)
    x[0, 3, 4, 4] = np.nan
    z = pycnn.compile(model, x.shape)(x)
    assert np.isnan(z[0, :, 4, 4]).all() and not np.isnan(z[1]).any()


def test_large_pooling_goes_past_the_caches():
    """What comes from memory is fetched ahead, and large results are not kept: the numbers are the same."""
    x = np.random.default_rng(0).standard_normal((1, 64, 726, 727), dtype=np.float32)
    y = pycnn.compile(nn.MaxPool2d(2), x.shape)(x)
    np.testing.assert_array_equal(y, x[..., :726].reshape(1, 64, 363, 2, 363, 2).max((3, 5)))
