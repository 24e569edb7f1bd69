"""Standard training: seeded, repeatable, and resumable at each epoch with the same result."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import DataError
from .checkpoints import read_training_state, weights_sha256, write_training_state
from .recipe import TrainingRecipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .image_data import Dataset

__all__ = ["EpochRecord", "Progress", "TrainingRecipe", "TrainingResult", "accuracy", "train"]

_log = logging.getLogger(__name__)
_MOMENTUM = 0.9


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a batch.

    Attributes:
        epoch: Current epoch, from 1.
        epochs: Epochs of the whole run.
        batch: Current batch of this epoch, from 1.
        batches: Batches per epoch.
        loss: Mean loss of this batch.
        eta_seconds: Estimated seconds to the end of the run.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    eta_seconds: float


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch came to: its mean training loss, accuracy on the test set (None without), seconds."""

    epoch: int
    loss: float
    accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to.

    Attributes:
        history: One record per epoch, those before a resumption included.
        seconds: Time spent in all epochs.
        sha256: Hash of the trained weights (`checkpoints.weights_sha256`).
    """

    history: tuple[EpochRecord, ...]
    seconds: float
    sha256: str

    @property
    def accuracy(self) -> float | None:
        """Accuracy on the test set after the last epoch, in [0, 1]; None without a test set."""
        return self.history[-1].accuracy


def train(
    model: nn.Module,
    data: Dataset,
    recipe: TrainingRecipe,
    *,
    test: Dataset | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainingResult:
    """Train a classifier in place with cross-entropy.

    The same initial weights, data, recipe, thread count and machine give the same weights, bit for bit;
    so does a run that was killed and started again with the same `checkpoint`, whose epochs already done
    are not repeated.

    Args:
        model: Takes (N, C, H, W) float32 pixels in [0, 1], returns (N, classes) logits.
        data: What to train on.
        recipe: How.
        test: Judged after each epoch.
        checkpoint: File that holds the state after each epoch; resumed from if it exists.
        progress: Called after each batch.

    Returns:
        History, time and the hash of the weights.

    Raises:
        DataError: The model cannot take the images, or has fewer outputs than they have classes.
        CheckpointError: The checkpoint is of another run (weights, data or recipe), or unreadable.
        OutputError: The checkpoint cannot be written.
    """
    for images in (data, test):
        if images is not None:
            _check_fit(model, images)
    run = _run_identity(model, data, recipe)
    optimizer = _optimizer(model, recipe)
    history: list[EpochRecord] = []
    if checkpoint is not None and checkpoint.exists():
        state = read_training_state(checkpoint, run)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        history = [EpochRecord(**record) for record in state["history"]]
        _log.info("resuming %s after epoch %d of %d", checkpoint, len(history), recipe.epochs)
    with _repeatable():
        if recipe.precision == "bfloat16":
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for epoch in range(len(history), recipe.epochs):
            start = time.perf_counter()
            loss = _train_epoch(model, optimizer, data, recipe, epoch, progress)
            judged = None if test is None else accuracy(model, test)
            history.append(EpochRecord(epoch + 1, loss, judged, time.perf_counter() - start))
            _log.info("epoch %d of %d: %s", epoch + 1, recipe.epochs, history[-1])
            if checkpoint is not None:
                write_training_state(
                    checkpoint,
                    run,
                    {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "history": [asdict(record) for record in history],
                    },
                )
    model.eval()
    return TrainingResult(tuple(history), sum(record.seconds for record in history), weights_sha256(model))


def accuracy(model: nn.Module, data: Dataset, batch_size: int = 500) -> float:
    """Return the fraction of images that a model classifies correctly; ties go to the lowest class.

    Args:
        model: Takes float32 pixels in [0, 1]; its mode (training or evaluation) is left as it was.
        data: What to judge it on.
        batch_size: Images per forward pass.
    """
    was_training = model.training
    model.eval()
    correct = 0
    with torch.inference_mode():
        for first in range(0, len(data), batch_size):
            logits = model(_pixels(torch.from_numpy(data.images[first : first + batch_size])))
            labels = torch.from_numpy(data.labels[first : first + batch_size])
            correct += int((logits.argmax(1) == labels).sum())
    model.train(was_training)
    return correct / len(data)


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Dataset,
    recipe: TrainingRecipe,
    epoch: int,
    progress: Callable[[Progress], None] | None,
) -> float:
    """Train one epoch, whose randomness depends on seed and epoch alone; return the mean loss."""
    torch.manual_seed(_epoch_seed(recipe.seed, epoch))
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    batches = torch.split(torch.randperm(len(data)), recipe.batch_size)
    model.train()
    clipped = _layer_weights(model) if recipe.weight_clip is not None else []
    start, total = time.perf_counter(), 0.0
    for number, chosen in enumerate(batches):
        rate = recipe.learning_rate_at(epoch * len(batches) + number, recipe.epochs * len(batches))
        for group in optimizer.param_groups:
            group["lr"] = rate
        pixels = _pixels(_shifted(images[chosen], recipe.shift))
        optimizer.zero_grad()
        loss = _loss(model, pixels, labels[chosen], recipe)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        for weight in clipped:
            _clip_outliers(weight, recipe.weight_clip or 0.0)
        total += loss.item() * len(chosen)
        if progress is not None:
            done = number + 1
            left = (recipe.epochs - epoch) * len(batches) - done
            eta = (time.perf_counter() - start) / done * left
            progress(Progress(epoch + 1, recipe.epochs, done, len(batches), loss.item(), eta))
    return total / len(data)


def _loss(model: nn.Module, pixels: Tensor, labels: Tensor, recipe: TrainingRecipe) -> Tensor:
    half = recipe.precision == "bfloat16"
    if half:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        logits = model(pixels)
    return functional.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)


def _pixels(images: Tensor) -> Tensor:
    return images.to(torch.float32) / 255.0


def _shifted(images: Tensor, shift: int) -> Tensor:
    """Move each image by its own random offset of up to `shift` pixels, filling with zeros."""
    if shift == 0:
        return images
    n, _, height, width = images.shape
    padded = functional.pad(images, (shift, shift, shift, shift))
    down, right = torch.randint(0, 2 * shift + 1, (2, n, 1))
    rows = (down + torch.arange(height))[:, None, :, None]
    columns = (right + torch.arange(width))[:, None, None, :]
    channels = torch.arange(images.shape[1])[None, :, None, None]
    return padded[torch.arange(n)[:, None, None, None], channels, rows, columns]


@torch.no_grad()
def _clip_outliers(weight: Tensor, deviations: float) -> None:
    bound = float(weight.std(correction=0)) * deviations
    weight.clamp_(-bound, bound)


def _layer_weights(model: nn.Module) -> list[Tensor]:
    """Weights of convolutions and dense layers: what is decayed and clipped. Batch norms have one axis."""
    return [parameter for parameter in model.parameters() if parameter.ndim > 1]


def _optimizer(model: nn.Module, recipe: TrainingRecipe) -> torch.optim.Optimizer:
    groups = [
        {"params": _layer_weights(model), "weight_decay": recipe.weight_decay},
        {
            "params": [parameter for parameter in model.parameters() if parameter.ndim <= 1],
            "weight_decay": 0.0,
        },
    ]
    if recipe.optimizer == "adam":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=True)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=_MOMENTUM, nesterov=True)


def _check_fit(model: nn.Module, data: Dataset) -> None:
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            logits = model(_pixels(torch.from_numpy(data.images[:1])))
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"the model cannot take images of {data.images.shape[1:]} ({reason})") from error
    finally:
        model.train(was_training)
    if logits.ndim != 2 or logits.shape[1] < data.classes:
        raise DataError(
            f"the model returns {tuple(logits.shape)} for one image of {data.name}, expected (1, classes) "
            f"with at least {data.classes} classes"
        )


def _run_identity(model: nn.Module, data: Dataset, recipe: TrainingRecipe) -> str:
    """Hash of all that decides a run, to recognise its checkpoint."""
    parts = [weights_sha256(model), data.sha256(), json.dumps(recipe.as_dict(), sort_keys=True)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _epoch_seed(seed: int, epoch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{epoch}".encode()).digest()[:7], "big")


@contextlib.contextmanager
def _repeatable() -> Iterator[None]:
    """Deterministic algorithms and a generator of our own, with the caller's settings put back after."""
    algorithms = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=[]):
        try:
            torch.use_deterministic_algorithms(True, warn_only=True)
            yield
        finally:
            torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
