"""U-Net finds digits on textured backgrounds, pixel by pixel.

    python examples/segment_digits.py [--epochs 10] [--images 4000] [--seed 0] [--log FILE] [--plot FILE]

The images are made: one to four of the package's own handwritten digits, at random places and sizes, lighter or
darker than a background of waves, lines and noise. A pixel's class is 0 for background and 1 + d for a digit d. Every
epoch has fresh images.

The handwritten digits are in three parts that never mix: training, validation and test. The learning rate is that of
three which does best, after a short run, on images made of validation's digits; images made of the test's digits are
looked at once, at the end.

Reports the share of pixels classified right and, for each class, intersection over union: the pixels that are of the
class and found to be, over those that are either.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import pycnn
from pycnn import losses, models, optim

SIDE = 64
CLASSES = 11
BATCH = 10
VALIDATION_DIGITS = 600  # of the 4000 to train
RATES = (1e-3, 3e-3, 1e-2)  # at the cycle's top, to choose from
INK = 0.5  # a pixel of a digit that is covered more than that belongs to it
BACKGROUND = 0.2  # how much a pixel of the background counts: there are ten times as many as of all digits


def background(rng):
    """(side, side): waves of random direction and length, some lines, and noise."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    image = np.full((SIDE, SIDE), rng.uniform(0.3, 0.7))
    for _ in range(4):
        along = rng.normal(size=2) * rng.uniform(5, 40)
        image += rng.uniform(0.02, 0.12) * np.sin(along[0] * x + along[1] * y + rng.uniform(0, 2 * np.pi))
    for _ in range(rng.integers(0, 4)):
        angle = rng.uniform(0, np.pi)
        distance = np.abs(np.cos(angle) * (x - rng.random()) + np.sin(angle) * (y - rng.random()))
        image += rng.uniform(-0.5, 0.5) * (distance < rng.uniform(0.005, 0.02))
    return image + rng.normal(size=image.shape) * rng.uniform(0.0, 0.08)


def resized(digit, size):
    """(28, 28) -> (size, size), bilinear."""
    at = np.clip((np.arange(size) + 0.5) * 28 / size - 0.5, 0, 27)
    low = np.minimum(at.astype(int), 26)
    share = (at - low)[:, None]
    rows = digit[low] * (1 - share) + digit[low + 1] * share
    columns = rows.T[low] * (1 - share) + rows.T[low + 1] * share
    return columns.T


def compose(digits, labels, count, rng):
    """Images (count, 1, side, side) float32 and classes (count, side, side)."""
    x = np.empty((count, 1, SIDE, SIDE), np.float32)
    y = np.zeros((count, SIDE, SIDE), np.int64)
    for image, classes in zip(x[:, 0], y, strict=True):
        canvas = background(rng)
        for pick in rng.integers(0, len(digits), rng.integers(1, 5)):
            size = rng.integers(22, 45)
            top, left = rng.integers(0, SIDE - size + 1, 2)
            where = np.s_[top : top + size, left : left + size]
            ink = resized(digits[pick], size)
            step = rng.uniform(0.3, 0.6) * rng.choice((-1, 1))
            canvas[where] += ink * (canvas.mean() + step - canvas[where])
            classes[where][ink > INK] = 1 + labels[pick]
        image[:] = canvas - 0.5
    return x, y


def intersection_over_union(found, wanted):
    """By class; NaN for one that is neither there nor found."""
    both = np.bincount(wanted[found == wanted], minlength=CLASSES)
    either = np.bincount(found.ravel(), minlength=CLASSES) + np.bincount(wanted.ravel(), minlength=CLASSES) - both
    return both / np.where(either, either, np.nan)


class Log:
    """Writes lines to the screen and into a file."""

    def __init__(self, path):
        self.file = path.open("w", encoding="utf-8") if path else None

    def __call__(self, line=""):
        for file in filter(None, (sys.stdout, self.file)):
            print(line, file=file, flush=True)


def train(arguments, digits, rate, epochs, images, validation, log):
    """A network trained from its initial weights, and by epoch: pixels right and mean IoU of digits, of validation."""
    pycnn.manual_seed(arguments.seed)
    model = models.unet(CLASSES, in_channels=1, base_width=arguments.width)
    optimizer = optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=max(epochs * images // BATCH, 2))
    loss = losses.CrossEntropyLoss(weight=np.array([BACKGROUND] + [1.0] * 10, np.float32))
    trainer = pycnn.Trainer(model, loss, optimizer, scheduler=schedule)
    history = []
    for epoch in range(epochs):
        start = time.perf_counter()
        x, y = compose(*digits, images, np.random.default_rng((arguments.seed, epoch)))
        logs = trainer.fit(x, y, epochs=1, batch_size=BATCH, progress=False, seed=arguments.seed)
        history.append(score(trainer, *validation)[:2])
        seconds = time.perf_counter() - start
        right, mean = history[-1]
        log(f"{rate:7.0e} {epoch + 1:5d} {logs['loss'][0]:6.3f} {right:13.4f} {mean:19.4f} {seconds:8.1f}")
    return trainer, history


def score(trainer, x, y):
    """The share of pixels right, the mean IoU of digits, the IoU of each class, and the classes found."""
    found = trainer.predict(x, batch_size=50).argmax(1)
    scores = intersection_over_union(found, y)
    return np.mean(found == y), np.nanmean(scores[1:]), scores, found


def plot(path, history, x, y, found):
    """Curves of validation, and some images of the test: as they are, as they should be, as they were found."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = 6
    figure = pyplot.figure(figsize=(9, 6.2))
    grid = figure.add_gridspec(4, shown, height_ratios=(1.6, 1, 1, 1))
    axes = figure.add_subplot(grid[0, :])
    epochs = range(1, len(history) + 1)
    for name, values in zip(("pixels right", "mean IoU of digits"), np.transpose(history), strict=True):
        axes.plot(epochs, values, label=name)
    axes.set(xlabel="epoch", ylabel="validation", ylim=(0, 1))
    axes.legend()
    for column in range(shown):
        for row, picture in enumerate((x[column, 0], y[column], found[column])):
            axes = figure.add_subplot(grid[row + 1, column])
            limits = (-0.5, 0.5) if row == 0 else (0, CLASSES)
            axes.imshow(picture, "gray" if row == 0 else "tab20", vmin=limits[0], vmax=limits[1])
            axes.set_axis_off()
    figure.tight_layout()
    figure.savefig(path, dpi=60)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=4000, help="a training epoch")
    parser.add_argument("--trial", type=int, default=3000, help="training images to choose the learning rate by")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=16, help="channels of the U-Net at full size")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--plot", type=Path, help="where to draw curves and examples; needs matplotlib")
    arguments = parser.parse_args()

    data = pycnn.data.mnist5k()
    pixels = data.train.x[:, 0] / np.float32(255)
    digits = pixels[:-VALIDATION_DIGITS], data.train.y[:-VALIDATION_DIGITS]
    held_back = pixels[-VALIDATION_DIGITS:], data.train.y[-VALIDATION_DIGITS:]
    validation = compose(*held_back, 250, np.random.default_rng((arguments.seed, 1, 1)))

    log = Log(arguments.log)
    parameters = models.unet(CLASSES, in_channels=1, base_width=arguments.width).num_parameters
    log(f"pycnn {pycnn.__version__}, threads: {pycnn.get_num_threads()}")
    log(f"U-Net of width {arguments.width}, {parameters:,} parameters; output by a 1 x 1 convolution")
    log(f"made images of {SIDE} x {SIDE}; batches of {BATCH}, AdamW, one cycle; seed {arguments.seed}")
    sizes = len(digits[0]), len(held_back[0]), len(data.test.x)
    log("handwritten digits: {} to train, {} for validation, {} to test".format(*sizes))
    header = "     lr epoch   loss  pixels right  mean IoU of digits  seconds"

    log(f"\nlearning rates, {arguments.trial} images each, scores of {len(validation[0])} validation images\n{header}")
    found = [train(arguments, digits, rate, 1, arguments.trial, validation, log)[1][-1][1] for rate in RATES]
    rate = RATES[int(np.argmax(found))]
    log(f"\nchosen: {rate:.0e}; {arguments.images} fresh images an epoch\n{header}")
    trainer, history = train(arguments, digits, rate, arguments.epochs, arguments.images, validation, log)

    unseen = data.test.x[:, 0] / np.float32(255), data.test.y
    x, y = compose(*unseen, 500, np.random.default_rng((arguments.seed, 1, 2)))
    right, mean, scores, classes = score(trainer, x, y)
    by_digit = ", ".join(f"{digit}: {value:.3f}" for digit, value in enumerate(scores[1:]))
    log(f"\ntest, {len(x)} images, {np.mean(y > 0):.1%} of their pixels in digits")
    log(f"pixels right {right:.4f}, mean IoU of digits {mean:.4f}; background {scores[0]:.3f}, {by_digit}")
    if arguments.plot:
        plot(arguments.plot, history, x, y, classes)


if __name__ == "__main__":
    main()
