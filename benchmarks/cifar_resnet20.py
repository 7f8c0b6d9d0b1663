"""ResNet-20 on CIFAR-10 from its initial weights: the log and the curve of one run.

    python benchmarks/cifar_resnet20.py FOLDER [--epochs 15] [--log FILE] [--plot FILE]

FOLDER is what `pycnn.data.cifar10` takes. Augmentation is that of He et al. (2015), a crop of the image padded by 4 and
a flip; the learning rate makes one cycle (Smith and Topin, 2018) instead of the paper's 164 epochs of steps.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import pycnn
from pycnn import data, losses, models, optim
from pycnn.callbacks import Callback

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
COLUMNS = ("lr", "loss", "accuracy", "val_loss", "val_accuracy", "seconds", "images_per_second")


class Log(Callback):
    """Writes a line an epoch, to the screen and into a file."""

    def __init__(self, path, header):
        self.file = path.open("w", encoding="utf-8") if path else None
        self.write(header + "\nepoch " + " ".join(f"{name:>17}" for name in COLUMNS))

    def write(self, line):
        for file in filter(None, (sys.stdout, self.file)):
            print(line, file=file, flush=True)

    def on_epoch_end(self, trainer, epoch, logs):
        self.write(f"{epoch:5d} " + " ".join(f"{logs[name]:17.5g}" for name in COLUMNS))


def plot(history, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    epochs = range(1, len(history["loss"]) + 1)
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    axes.plot(epochs, 100 * np.array(history["accuracy"]), marker=".", label="training, augmented")
    axes.plot(epochs, 100 * np.array(history["val_accuracy"]), marker=".", label="test")
    axes.axhline(85, color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel="epoch", ylabel="accuracy, %", title="ResNet-20 on CIFAR-10")
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.2, help="at the cycle's top")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--plot", type=Path, help="needs matplotlib")
    arguments = parser.parse_args()

    pycnn.manual_seed(arguments.seed)
    train, test = data.cifar10(arguments.folder)
    pixels = train.x / np.float32(255)
    normalize = data.Normalize(pixels.mean((0, 2, 3)), pixels.std((0, 2, 3)))
    augment = data.Compose([data.RandomCrop(32, padding=4), data.RandomHorizontalFlip(), normalize])
    batches = data.DataLoader(
        train, arguments.batch, shuffle=True, transform=augment, drop_last=True, seed=arguments.seed
    )
    model = models.resnet20_cifar()
    optimizer = optim.SGD(model.parameters(), arguments.lr, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True)
    scheduler = optim.lr_scheduler.OneCycleLR(
        optimizer, arguments.lr, epochs=arguments.epochs, steps_per_epoch=len(batches), cycle_momentum=False
    )
    trainer = pycnn.Trainer(model, losses.CrossEntropyLoss(), optimizer, scheduler=scheduler)
    header = (
        f"pycnn {pycnn.__version__}, {pycnn.get_num_threads()} threads; ResNet-20, {model.num_parameters:,} "
        f"parameters\n"
        f"{len(train.x):,} images to train, {len(test.x):,} to test; batches of {arguments.batch}, "
        f"seed {arguments.seed}; one cycle up to lr {arguments.lr}, momentum {MOMENTUM}, weight decay {WEIGHT_DECAY}"
    )
    history = trainer.fit(
        batches,
        epochs=arguments.epochs,
        validation_data=data.DataLoader(test, 500, transform=normalize),
        callbacks=[Log(arguments.log, header)],
        progress=False,
    )
    if arguments.plot:
        plot(history, arguments.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
