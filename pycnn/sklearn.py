"""Networks as scikit-learn estimators. Needs scikit-learn: pip install pycnn[sklearn]."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from pycnn import models, random
from pycnn._arguments import integer
from pycnn._batches import slices
from pycnn._modes import evaluation
from pycnn.losses import CrossEntropyLoss
from pycnn.nn import Linear, Module, ReLU, Sequential
from pycnn.optim import AdamW
from pycnn.optim.lr_scheduler import OneCycleLR
from pycnn.parameter import Array
from pycnn.trainer import Trainer

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("pycnn.sklearn needs scikit-learn 1.6 or newer: pip install pycnn[sklearn]") from error

_HIDDEN = 100  # units of the network for plain features, as many as MLPClassifier has
_BATCH = 256  # of prediction


class CNNClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A network that is trained by AdamW on cross entropy, behind scikit-learn's interface.

    X is (n, features), or (n, channels, height, width). Each feature, or each channel of images, is brought to mean 0
    and variance 1 by what the first training saw.

    Args:
        model: what to train. None: for images `pycnn.models.digits_cnn`, for plain features one hidden layer. For
            images, a name that `pycnn.models.create` knows, or a function of `num_classes` and `in_channels` that
            returns a Module. A Module: a copy of it is trained, from the weights it has.
        image_shape: (height, width) or (channels, height, width) of images whose pixels are X's features; by default
            the shape of X, if it has four dimensions.
        epochs: how often `fit` goes through the data.
        batch_size: images an update.
        learning_rate: the highest one of `fit`, whose schedule is OneCycleLR; the one of `partial_fit`.
        weight_decay: of AdamW.
        random_state: of initial weights, order and dropout; an int gives the same bits each time.
        verbose: show a progress bar.

    Attributes:
        classes_: labels in order. model_: the trained network. n_features_in_: features, or pixels of all channels.
        mean_, scale_: what inputs were brought to mean 0 and variance 1 by.
    """

    def __init__(
        self,
        model: Any = None,
        image_shape: Any = None,
        *,
        epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-2,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.image_shape = image_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> CNNClassifier:
        """Trains a new network.

        Args:
            X: (n, features) or (n, channels, height, width), numbers. y: (n,) labels.

        Raises:
            TypeError, ValueError: X, y or an argument of the constructor does not fit.
        """
        X, y = self._check(X, first=True, y=y)
        self._start(X, np.unique(y))
        self._train(X, y, integer(self.epochs, "epochs", 1), schedule=True)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> CNNClassifier:
        """Goes through the data once, on from where training is; the first call begins it.

        Args:
            X, y: as of `fit`. classes: all labels there will be; the first call needs them.
        """
        first = not hasattr(self, "model_")
        X, y = self._check(X, first, y=y)
        if first:
            if classes is None:
                raise ValueError("classes: got None, expected all labels at the first call of partial_fit")
            self._start(X, np.unique(classes))
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(f"classes: got {classes}, expected {self.classes_} as at the first call of partial_fit")
        self._train(X, y, epochs=1, schedule=False)
        return self

    def predict(self, X: Any) -> Array:
        """The likeliest label of each row (n,)."""
        probabilities = self.predict_proba(X)
        labels: Array = self.classes_[probabilities.argmax(1)]
        return labels

    def predict_proba(self, X: Any) -> Array:
        """Probabilities (n, classes), in the order of `classes_`."""
        check_is_fitted(self)
        x = self._prepare(self._check(X))
        with evaluation(self.model_):
            logits = np.concatenate([self.model_(part) for part in slices(x, _BATCH)]).astype(np.float64)
        powers = np.exp(logits - logits.max(1, keepdims=True))
        result: Array = powers / powers.sum(1, keepdims=True)
        return result

    # -- the parts

    _shape: tuple[int, ...]  # of one input of the network: (features,) or (channels, height, width)

    def _check(self, X: Any, first: bool = False, **labels: Any) -> Any:
        """X as (n, features) in float32 or float64; with y=, labels beside it."""
        images = X.shape[1:] if getattr(X, "ndim", 0) == 4 else None
        if images is not None:
            if not first and images != self._shape:
                raise ValueError(f"X: got images of shape {images}, expected {self._shape}")
            X = np.reshape(X, (X.shape[0], math.prod(images)))
        checked = validate_data(self, X, reset=first, dtype=[np.float64, np.float32], **labels)
        if labels:
            check_classification_targets(checked[1])
        if first:
            self._shape = self._read_shape(images)
        return checked

    def _read_shape(self, found: tuple[int, ...] | None) -> tuple[int, ...]:
        if self.image_shape is None:
            return found or (self.n_features_in_,)
        sizes = tuple(integer(size, "image_shape", 1) for size in self.image_shape)
        shape = sizes if len(sizes) == 3 else (1, *sizes)
        if len(shape) != 3 or math.prod(shape) != self.n_features_in_ or found not in (None, shape):
            got = f"{self.n_features_in_} features" if found is None else f"images of {found}"
            raise ValueError(f"image_shape: got {self.image_shape} for {got}, expected (channels, height, width)")
        return shape

    def _start(self, X: Array, classes: Array) -> None:
        self.classes_ = classes
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        rows = X.reshape(len(X), self._shape[0], -1)  # features or channels, and their pixels
        self.mean_ = rows.mean((0, 2), dtype=np.float64)
        scale = rows.std((0, 2), dtype=np.float64)
        self.scale_ = np.where(scale > 0, scale, 1.0)
        with random.seeded(self._seed):
            self.model_ = self._make()
        self._optimizer_state: dict[str, Any] | None = None
        self._epochs_done = 0

    def _make(self) -> Module:
        if isinstance(self.model, Module):
            return copy.deepcopy(self.model).float()
        count, images = len(self.classes_), len(self._shape) == 3
        if self.model is None and not images:
            return Sequential(Linear(self._shape[0], _HIDDEN), ReLU(), Linear(_HIDDEN, count))
        if not images:
            raise ValueError(f"image_shape: got None, expected the shape of the images for model {self.model!r}")
        if self.model is None:
            return models.digits_cnn(count, self._shape[0])
        if isinstance(self.model, str):
            return models.create(self.model, num_classes=count, in_channels=self._shape[0])
        if not callable(self.model):
            raise TypeError(f"model: got {type(self.model).__name__}, expected a name, a function or a Module")
        made = self.model(num_classes=count, in_channels=self._shape[0])
        if not isinstance(made, Module):
            raise TypeError(f"model: returned {type(made).__name__}, expected pycnn.nn.Module")
        return made

    def _prepare(self, X: Array) -> Array:
        rows = X.reshape(len(X), self._shape[0], -1)
        normal = (rows - self.mean_[:, None]) / self.scale_[:, None]
        return normal.astype(np.float32).reshape(len(X), *self._shape)

    def _train(self, X: Array, y: Array, epochs: int, schedule: bool) -> None:
        targets = np.searchsorted(self.classes_, y)
        known = targets < len(self.classes_)
        if not known.all() or (self.classes_[targets] != y).any():
            raise ValueError(f"y: got labels {np.unique(y)}, expected some of {self.classes_}")
        x = self._prepare(X)
        self._check_output(x)
        optimizer = AdamW(self.model_.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        if self._optimizer_state is not None:
            optimizer.load_state_dict(self._optimizer_state)
        steps = math.ceil(len(x) / integer(self.batch_size, "batch_size", 1))
        scheduler = None
        if schedule:
            scheduler = OneCycleLR(optimizer, self.learning_rate, epochs=epochs, steps_per_epoch=steps)
        trainer = Trainer(self.model_, CrossEntropyLoss(), optimizer, scheduler=scheduler)
        seed = self._seed + self._epochs_done
        trainer.fit(x, targets, epochs, self.batch_size, progress=bool(self.verbose), seed=seed)
        self._epochs_done += epochs
        self._optimizer_state = optimizer.state_dict()

    def _check_output(self, x: Array) -> None:
        with evaluation(self.model_):
            _, output = self.model_.trace(((1, *x.shape[1:]),), str(self.model_.dtype or x.dtype))
        if output.shape != (1, len(self.classes_)):
            raise ValueError(
                f"model: got an output of shape {output.shape}, expected (1, {len(self.classes_)}): a logit a class"
            )
