"""What Python and the call cost in a training step: the step of a network with nothing to do, beside a real one.

    python benchmarks/overhead.py [--network lenet5] [--batch 32] [--steps 400]

A network of one weight takes the same way through Python and into the engine, and has nothing to do there: what its
step takes is what call and Python cost, with a share of the engine's own start and end.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import pycnn
from pycnn import losses, models, nn, optim


def trainer_of(model):
    return pycnn.Trainer(model, losses.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.01, momentum=0.9))


def seconds_of_steps(trainer, x, y, steps):
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        trainer.step(x, y)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="lenet5", choices=models.names())
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args()

    rng = np.random.default_rng(0)
    x = rng.standard_normal((arguments.batch, *models.input_shape(arguments.network)), dtype=np.float32)
    y = rng.integers(0, 10, arguments.batch)
    network = trainer_of(models.create(arguments.network))
    nothing = trainer_of(nn.Linear(1, 1))
    one, first = np.ones((1, 1), np.float32), np.zeros(1, np.int64)
    for trainer, images, targets in ((network, x, y), (nothing, one, first)):
        seconds_of_steps(trainer, images, targets, 20)
    whole, empty = [], []
    for _ in range(5):
        whole.append(seconds_of_steps(network, x, y, arguments.steps))
        empty.append(seconds_of_steps(nothing, one, first, arguments.steps))
    step, overhead = min(whole), min(empty)
    print(f"{arguments.network}, batch {arguments.batch}: {1e6 * step:.0f} us a step")
    print(f"a step of one weight, which is call and Python: {1e6 * overhead:.1f} us, {overhead / step:.1%} of it")


if __name__ == "__main__":
    main()
