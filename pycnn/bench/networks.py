"""The networks that are measured whole, with the same weights for everybody."""

from __future__ import annotations

from typing import Any

from pycnn import models, nn, random
from pycnn.parameter import Array


def mnist_cnn(num_classes: int = 10, in_channels: int = 1) -> nn.Module:
    """Two convolutions and two linear layers, as in PyTorch's example for MNIST; for images of 28 x 28."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(9216, 128),
        nn.ReLU(),
        nn.Linear(128, num_classes),
    )


def create(name: str) -> nn.Module:
    """The network with the weights that a seed gives, and without dropout, whose masks no two libraries share."""
    with random.seeded(0):
        model = mnist_cnn() if name == "mnist_cnn" else models.create(name)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def load_into_torch(name: str, torch: Any) -> Any:
    """The same network with the same weights in PyTorch."""
    from pycnn.bench.engines import torch_networks

    network = torch_networks.mnist_cnn() if name == "mnist_cnn" else getattr(torch_networks, name)()
    weights: dict[str, Array] = create(name).state_dict()
    network.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return network
