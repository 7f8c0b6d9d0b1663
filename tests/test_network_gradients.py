"""Gradients of whole networks against central differences, in float64.

Along a direction d in all parameters and the input, the loss's derivative is the sum of gradient times d. Differences
of a step h err by the order of h^2, which is much in deep networks with batch normalization, by about 1e-16 / h of
rounding, and by its share of the gradient for each unit whose ReLU turns within the step.
"""

import numpy as np
import pytest

import pycnn
from helpers import as_double, normal
from pycnn import losses, models, nn

STEP, TOLERANCE = 1e-7, 1e-6
NETWORKS = {
    "lenet5": (models.lenet5, (3, 1, 28, 28)),
    "resnet18": (lambda: models.resnet18(5), (3, 3, 32, 32)),
    "resnet50": (lambda: models.ResNet(models.resnet.Bottleneck, (1, 1, 1, 1), 5), (3, 3, 32, 32)),
    "resnet20_cifar": (models.resnet20_cifar, (3, 3, 12, 16)),
    "mobilenet_v2": (lambda: models.mobilenet_v2(5), (4, 3, 64, 64)),
    "unet": (lambda: models.unet(3, base_width=3), (2, 3, 17, 20)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_derivative_along_any_direction(name):
    make, shape = NETWORKS[name]
    pycnn.manual_seed(5)
    model = make().double()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    x = normal(shape, np.float64)
    loss = losses.CrossEntropyLoss(label_smoothing=0.1)
    logits = model(x)
    rng = np.random.default_rng(1)
    targets = rng.integers(0, logits.shape[1], (shape[0], *logits.shape[2:]))

    loss(logits, targets)
    dx = model.backward(loss.backward())
    places = [x, *(p.data for p in model.parameters())]
    gradients = [dx, *(p.grad.copy() for p in model.parameters())]
    kept = [place.copy() for place in places]
    norms = [np.linalg.norm(gradient) for gradient in gradients]
    for chosen in range(2):
        # Of each tensor a share of its own scale, so that all of them count, or none; first all, then some.
        counts = [chosen == 0 or rng.random() < 0.3 for _ in places]
        directions = [
            count * rng.normal(size=place.shape) * max(0.01, float(np.std(as_double(place)))) / np.sqrt(len(places))
            for count, place in zip(counts, places, strict=True)
        ]
        sides = []
        for sign in (1, -1):
            for place, value, direction in zip(places, kept, directions, strict=True):
                place[...] = value + sign * STEP * direction
            sides.append(loss(model(x), targets))
        want = (sides[0] - sides[1]) / (2 * STEP)
        got = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
        scale = np.sqrt(sum((n * np.linalg.norm(d)) ** 2 for n, d in zip(norms, directions, strict=True)))
        assert abs(got - want) <= TOLERANCE * scale, f"{got} by backward, {want} by differences"
