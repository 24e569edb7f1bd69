"""`TrainingRecipe`: every setting of a training run, checked when it is made. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from .checks import require_flag, require_integer, require_number, require_one_of

OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("one-cycle", "cosine", "constant")
PRECISIONS = ("float32", "bfloat16")

# One-cycle as in Smith and Topin, "Super-Convergence" (2018): rise over the first 30 % of the steps from
# peak / 25, then fall to peak / 25 / 10,000, both along a half cosine (the defaults of PyTorch's scheduler).
_RISE = 0.3
_START = 1 / 25
_END = _START / 1e4


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How a classifier is trained.

    Attributes:
        epochs: Passes over the data.
        batch_size: Images per step; a last batch that is smaller is used too.
        optimizer: "adam" (with decoupled weight decay: AdamW) or "sgd" (with momentum 0.9, Nesterov).
        learning_rate: The peak of the schedule.
        schedule: "one-cycle", "cosine" (from the peak to 0) or "constant".
        weight_decay: Of weights of layers; not of biases and batch norms.
        weight_clip: After each step, weights of a layer are clipped to this many of the layer's standard
            deviations; None for no clipping. A per-tensor step is max|W| / L, so one outlier costs a
            low-bit layer all its resolution.
        shift: Largest random shift of a training image in pixels (zero padding and crop); 0 for none.
        flip: Mirror every other training image, left to right, by chance.
        label_smoothing: Probability mass spread over all classes in the loss, in [0, 1).
        precision: "float32", or "bfloat16" for autocast and channels_last, which pays off only where the
            processor has AMX or AVX512-BF16: on one with AVX2 alone, an epoch of the MNIST CNN on 2 cores
            was measured at 544 s against 44 s in float32.
        seed: Of order, shifts and whatever else is random.

    Raises:
        RecipeError: A setting is out of its range.
    """

    epochs: int = 12
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "one-cycle"
    weight_decay: float = 0.0
    weight_clip: float | None = None
    shift: int = 0
    flip: bool = False
    label_smoothing: float = 0.0
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        require_integer("epochs", self.epochs, 1)
        require_integer("batch_size", self.batch_size, 1)
        require_integer("shift", self.shift, 0)
        require_integer("seed", self.seed, 0)
        require_number("learning_rate", self.learning_rate, 0.0, inclusive=False)
        require_number("weight_decay", self.weight_decay, 0.0)
        require_number("label_smoothing", self.label_smoothing, 0.0, below=1.0)
        if self.weight_clip is not None:
            require_number("weight_clip", self.weight_clip, 1.0, inclusive=False)
        require_flag("flip", self.flip)
        require_one_of("optimizer", self.optimizer, OPTIMIZERS)
        require_one_of("schedule", self.schedule, SCHEDULES)
        require_one_of("precision", self.precision, PRECISIONS)

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate of one step; a function of its number alone, so that runs can resume.

        Args:
            step: Number of the step, 0 to steps - 1.
            steps: Number of steps of the whole run.
        """
        done = step / max(steps - 1, 1)
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "cosine":
            return self.learning_rate * _half_cosine(1.0, 0.0, done)
        if done < _RISE:
            return self.learning_rate * _half_cosine(_START, 1.0, done / _RISE)
        return self.learning_rate * _half_cosine(1.0, _END, (done - _RISE) / (1 - _RISE))

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for a checkpoint or a model card."""
        return asdict(self)


def _half_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
