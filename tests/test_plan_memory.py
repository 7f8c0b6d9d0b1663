"""What a compiled network takes: one copy of each weight, and little beside the largest two results."""

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


def test_resnet50_for_one_image(resnet50):
    shape = (1, 3, 224, 224)
    plan = pycnn.compile(resnet50, shape)
    packed = plan.memory["constants"]
    raw = sum(parameter.data.nbytes for parameter in resnet50.parameters())
    assert raw * 0.99 <= packed <= 1.6 * raw  # scale and shift of normalization are gone into weights and bias
    assert plan.memory_bytes == sum(plan.memory.values())
    assert plan.memory_bytes <= 1.15 * (packed + largest_results(resnet50.eval(), shape))
