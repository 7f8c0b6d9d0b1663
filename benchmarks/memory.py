"""Memory of a training step beside PyTorch's: what a process grows by.

    python benchmarks/memory.py [--network resnet18] [--batch 16] [--steps 3]

Each line is a process of its own that imports the library, makes the network (its weights written once) and a batch of
images, reads how much memory is resident, trains some steps (SGD with momentum), and reads the largest amount that was
ever resident. The difference holds activations, gradients, the optimizer's state, workspace and the allocator's waste.
Linux only: it reads and resets VmHWM in /proc/self.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import numpy as np

SIDE, CLASSES = 224, 1000
KINDS = ("pycnn normal", "pycnn low", "PyTorch", "PyTorch channels_last")


def resident(field):
    """Mebibytes of this process: VmRSS, now, or VmHWM, the most since `forget`."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith(field))
    return int(line.split()[1]) / 1024


def forget():
    with open("/proc/self/clear_refs", "w", encoding="ascii") as peak:
        peak.write("5")


def pycnn_step(network, x, targets, memory):
    import pycnn
    from pycnn import losses, models, optim

    model = models.create(network)
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    trainer = pycnn.Trainer(model, losses.CrossEntropyLoss(), optimizer, memory=memory)
    return lambda: trainer.step(x, targets)


def torch_step(network, x, targets, channels_last):
    import torch

    from pycnn.bench.engines import torch_networks

    model = getattr(torch_networks, network)()
    images, targets = torch.from_numpy(x), torch.from_numpy(targets)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), targets).backward()
        optimizer.step()

    return step


def measure(kind, network, batch, steps):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, 3, SIDE, SIDE), dtype=np.float32)
    targets = rng.integers(0, CLASSES, batch)
    library, _, option = kind.partition(" ")
    if library == "pycnn":
        step = pycnn_step(network, x, targets, option)
    else:
        step = torch_step(network, x, targets, option == "channels_last")
    before = resident("VmRSS")
    forget()
    for _ in range(steps):
        step()
    return resident("VmHWM") - before


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)  # of one process
    arguments = parser.parse_args()
    if arguments.kind:
        print(measure(arguments.kind, arguments.network, arguments.batch, arguments.steps))
        return
    found = {}
    for kind in KINDS:
        command = [sys.executable, __file__, "--kind", kind, "--network", arguments.network]
        command += ["--batch", str(arguments.batch), "--steps", str(arguments.steps)]
        found[kind] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    best = min(found["PyTorch"], found["PyTorch channels_last"])
    print(f"{arguments.network}, batch {arguments.batch}, {arguments.steps} steps: MiB that a process grows by")
    for kind, value in found.items():
        print(f"{kind:22} {value:8.0f}   {value / best:.2f} of PyTorch's least")


if __name__ == "__main__":
    main()
