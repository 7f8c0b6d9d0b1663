"""What an installed wheel must do, for each ISA of this CPU: python smoke.py, outside the checkout."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import pycnn
from pycnn import losses, nn, optim


def reference(src, weights):
    """A 3x3 convolution with padding 1, by its definition, in float64."""
    n, _, h, w = src.shape
    padded = np.pad(src.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    dst = np.zeros((n, len(weights), h, w))
    for y in range(3):
        for x in range(3):
            dst += np.einsum("nihw,oi->nohw", padded[:, :, y : y + h, x : x + w], weights[:, :, y, x])
    return dst


def check_this_isa() -> str:
    rng = np.random.default_rng(0)
    src = rng.standard_normal((2, 19, 13, 11), dtype=np.float32)
    conv = nn.Conv2d(19, 21, kernel_size=3, padding=1, bias=False)
    expected = reference(src, conv.weight.data)
    error = np.abs(conv(src) - expected).max() / np.abs(expected).max()
    assert error < 1e-5, error

    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 26 * 26, 10))
    trainer = pycnn.Trainer(
        model, loss=losses.CrossEntropyLoss(), optimizer=optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    )
    digits = pycnn.data.mnist5k().train
    x, y = digits.x[::40].astype(np.float32) / 255, digits.y[::40]
    steps = [trainer.step(x, y) for _ in range(10)]
    assert steps[-1] < 0.5 * steps[0], steps

    plan = pycnn.compile(model.eval(), input_shape=x.shape)
    assert np.allclose(plan(x), model(x), atol=1e-4)
    return pycnn.cpu_info()["isa"]


def main() -> None:
    for path in (pycnn.get_include() + "/cnn_core.h", pycnn.get_include() + "/cnn_api.h", pycnn.cmake_dir()):
        assert Path(path).exists(), path
    assert [*Path(pycnn.get_library_dir()).glob("*cnn_core*")], "no static library"
    info = pycnn.cpu_info()
    for isa in info["available_isas"]:
        subprocess.run([sys.executable, __file__, isa], env={**os.environ, "CNN_FORCE_ISA": isa}, check=True)
    print("pycnn", info["version"], info["thread_backend"], "on", *info["available_isas"], "from", pycnn.__file__)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        assert check_this_isa() == sys.argv[1]
