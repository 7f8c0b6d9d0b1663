"""Makes what the other examples read: digits.cnn, a network trained on the bundled digits, and digit.pgm, a digit.

python digits.py [epochs]
"""

import sys

import numpy as np

import pycnn
from pycnn import losses, nn, optim


def main(epochs: int) -> None:
    pycnn.manual_seed(0)
    digits = pycnn.data.mnist5k()
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 10),
    )
    x = digits.train.x.astype(np.float32) / 255  # the C programs scale pixels so, too
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)
    trainer = pycnn.Trainer(model, loss=losses.CrossEntropyLoss(), optimizer=optimizer)
    trainer.fit(x, digits.train.y, epochs=epochs, batch_size=50, progress=False)
    held_out = trainer.predict(digits.test.x.astype(np.float32) / 255).argmax(axis=1)
    print(f"{(held_out == digits.test.y).mean():.1%} of {len(held_out)} digits held out are recognized")

    pycnn.compile(model.eval(), input_shape=(1, 1, 28, 28)).save("digits.cnn")
    with open("digit.pgm", "wb") as file:
        file.write(b"P5 28 28 255\n" + digits.test.x[0].tobytes())
    print(f"digits.cnn, and digit.pgm, which shows a {digits.test.y[0]}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
