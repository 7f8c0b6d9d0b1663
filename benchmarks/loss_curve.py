"""ResNet-18's loss over fifty steps of training, beside PyTorch's from the same weights on the same images.

    python benchmarks/loss_curve.py [--steps 50] [--size 64] [--batch 8] [--lr 0.005]

Five runs: pycnn with Winograd's algorithm and without, PyTorch in float32, in float32 from weights one rounding apart,
and in float64. Training amplifies rounding, and the last but one says how much: two float32 runs cannot be expected to
be closer to the float64 one than it is.
"""

from __future__ import annotations

import argparse
import copy
import functools
import sys
from unittest import mock

import numpy as np
import torch

import pycnn
from pycnn import losses, models, optim, tracing
from pycnn.bench.engines import torch_networks

CLASSES = 10
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4


def batches(steps, batch, size):
    """Images whose class can be learned: noise about a mean image for each class."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(CLASSES, 3, size, size))
    for _ in range(steps):
        targets = rng.integers(0, CLASSES, batch)
        yield (means[targets] + 0.5 * rng.normal(size=(batch, 3, size, size))).astype(np.float32), targets


def run_pycnn(state, data, lr, winograd):
    model = models.resnet18(CLASSES)
    model.load_state_dict({name: value.numpy() for name, value in state.items()})
    optimizer = optim.SGD(model.parameters(), lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    trainer = pycnn.Trainer(model, losses.CrossEntropyLoss(), optimizer)
    with mock.patch.object(tracing, "Runner", functools.partial(tracing.Runner, winograd=winograd)):
        return [trainer.step(x, targets) for x, targets in data]


def run_torch(model, data, lr, dtype):
    model = copy.deepcopy(model).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    values = []
    for x, targets in data:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(torch.tensor(x).to(dtype)), torch.tensor(targets))
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    return values


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.005)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    model = torch_networks.resnet18(CLASSES)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    nudged = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in nudged.parameters():
            parameter.copy_(torch.nextafter(parameter, torch.full_like(parameter, torch.inf)))
    data = list(batches(arguments.steps, arguments.batch, arguments.size))
    lr = arguments.lr
    exact = np.array(run_torch(model, data, lr, torch.float64))
    runs = {
        "pycnn": run_pycnn(model.state_dict(), data, lr, winograd=True),
        "direct": run_pycnn(model.state_dict(), data, lr, winograd=False),
        "PyTorch": run_torch(model, data, lr, torch.float32),
        "nudged": run_torch(nudged, data, lr, torch.float32),
    }
    print(f"pycnn {pycnn.__version__}, PyTorch {torch.__version__}; ResNet-18 for {CLASSES} classes")
    print(f"{arguments.batch} images of {arguments.size} x {arguments.size} a step; SGD, lr {lr}, momentum {MOMENTUM}")
    print("direct: pycnn without Winograd's algorithm; nudged: PyTorch from weights one rounding apart\n")
    print("         loss | difference from it of")
    print("step  float64 | " + " ".join(f"{name:>8}" for name in runs))
    differences = np.abs(np.array([*runs.values()]) - exact)
    for step in range(arguments.steps):
        print(f"{step:4d} {exact[step]:8.5f} | " + " ".join(f"{value:8.1e}" for value in differences[:, step]))
    print("largest       | " + " ".join(f"{value:8.1e}" for value in differences.max(1)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
