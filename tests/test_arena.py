"""The traces of a network share memory: no more of it for more shapes, and none reads what another has written."""

import copy
import pickle
import sys
import threading

import numpy as np
import pytest

import pycnn
from pycnn import losses, nn, optim, random
from pycnn.tracing import Traced

SIZES = (7, 3, 16, 1, 12, 16, 5)


def network(channels=8):
    with random.seeded(3):
        return nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.Sigmoid(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, 4),
        )


def images(n, side=12):
    return np.random.default_rng(n).standard_normal((n, 3, side, side)).astype(np.float32)


def targets(n):
    return np.random.default_rng(n).integers(0, 4, n)


def test_as_much_memory_as_the_largest_shape():
    alone, model = network(), network()
    alone(images(max(SIZES)))
    for n in SIZES:
        model(images(n))
    assert len(model._traces) > 1
    assert model._arena.bytes == alone._arena.bytes > 4 * 16 * 8 * 12 * 12


def test_trainers_too():
    model = network()
    trainer = pycnn.Trainer(model, losses.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.1))
    trainer.step(images(16), targets(16))
    largest = trainer._arena.bytes
    for n in SIZES:
        trainer.step(images(n), targets(n))
        trainer.evaluate(images(n), targets(n))
        trainer.predict(images(n))
    model[0].requires_grad_(False)  # planned again
    trainer.step(images(16), targets(16))
    assert len(trainer._traces) > 4
    assert trainer._arena.bytes == largest


def anonymous_bytes():
    with open("/proc/self/smaps_rollup", encoding="ascii") as lines:
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self")
def test_the_process_does_not_grow():
    model = network(64)
    model.backward(np.ones_like(model(images(16, 64))))
    one = model._arena.bytes
    before = anonymous_bytes()
    for n in (15, 14, 13):
        model.backward(np.ones_like(model(images(n, 64))))
    assert one > 32 << 20
    assert anonymous_bytes() - before < one / 4


def gradients(model, n):
    model.zero_grad()
    y = model(images(n))
    dx = model.backward(np.cos(y))
    return [y, dx, *(p.grad.copy() for p in model.parameters())]


def test_interleaved_shapes_compute_what_each_does_alone():
    model = network()
    states = model.state_dict()
    for n in SIZES:
        model.load_state_dict(states)
        for mine, alone in zip(gradients(model, n), gradients(network(), n), strict=True):
            assert np.array_equal(mine, alone)


def test_interleaved_steps_are_those_of_trainers_of_their_own():
    def step(trainer, n):
        return trainer.step(images(n), targets(n))

    def make(model):
        return pycnn.Trainer(model, losses.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.1))

    model, twin = network(), network()
    trainer = make(model)
    for n in SIZES:
        assert step(trainer, n) == step(make(twin), n)
    assert all(np.array_equal(a.data, b.data) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_backward_is_of_the_last_forward():
    model, alone = network(), network()
    model.eval(), alone.eval()
    first = model(images(5))
    second = model(images(9))
    dx = model.backward(np.cos(second))
    assert dx.shape == (9, 3, 12, 12)
    assert np.array_equal(second, alone(images(9))) and np.array_equal(dx, alone.backward(np.cos(second)))
    assert np.array_equal(dx, model.backward(np.cos(second)))  # once more from the same forward
    with pytest.raises(ValueError, match="dy"):
        model.backward(np.cos(first))


def test_nothing_that_was_handed_out_changes():
    model, conv = network(), nn.Conv2d(3, 4, 3)
    held = []
    for layer in (model, conv):
        for n in SIZES:
            y = layer(images(n, 64))
            dx = layer.backward(np.cos(y))
            held += [(array, array.copy()) for array in (y, y[:1], dx)]
    assert all(np.array_equal(array, as_it_was) for array, as_it_was in held)


def test_a_trace_whose_memory_was_taken_says_so():
    model = network()
    model(images(4))
    first: Traced = model._last
    model(images(6))
    with pytest.raises(RuntimeError, match="call forward first"):
        first.backward((np.zeros((4, 4), np.float32),))


def test_threads_may_change_between_forward_and_backward():
    wanted = gradients(network(), 7)
    before = pycnn.get_num_threads()
    model = network()
    try:
        pycnn.set_num_threads(1)
        y = model(images(7))
        pycnn.set_num_threads(3)
        dx = model.backward(np.cos(y))
        assert np.array_equal(y, wanted[0]) and np.array_equal(dx, wanted[1])
        model.load_state_dict(network().state_dict())
        assert all(np.array_equal(a, b) for a, b in zip(gradients(model, 7), wanted, strict=True))
    finally:
        pycnn.set_num_threads(before)


def test_threads_with_shapes_of_their_own():
    model = network().eval()
    wanted = {n: model(images(n)) for n in SIZES}
    wrong = []

    def run(n):
        for _ in range(20):
            if not np.array_equal(model._find_trace((images(n),), key(n)).forward((images(n),), 0, 0), wanted[n]):
                wrong.append(n)

    def key(n):
        return ((n, 3, 12, 12),), (np.dtype(np.float32),)

    threads = [threading.Thread(target=run, args=(n,)) for n in (3, 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_have_memory_of_their_own(twin_of):
    model = network().eval()
    y = model(images(5))
    twin = twin_of(model)
    assert twin._arena is not model._arena and twin._arena.bytes == 0
    twin(images(9))
    assert model.backward(np.cos(y)).shape == (5, 3, 12, 12)


def test_losses_of_interleaved_shapes():
    loss = losses.CrossEntropyLoss()
    for n in SIZES:
        logits = images(n)[:, :, 0, :4].reshape(n, -1)
        value = loss(logits, targets(n))
        fresh = losses.CrossEntropyLoss()
        assert value == fresh(logits, targets(n)) and np.array_equal(loss.backward(), fresh.backward())
