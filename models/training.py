"""The training loop: seeded, repeatable, and resumable at each epoch with the same result."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import DataError
from .checkpoints import read_training_state, weights_sha256, write_training_state
from .curves import write_curves
from .network import Network, pixels_of
from .parallel import Processes
from .recipe import TrainingRecipe
from .recipes.standard import Standard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .image_data import Dataset
    from .recipes.base import Method

__all__ = ["EpochRecord", "Progress", "TrainingRecipe", "TrainingResult", "accuracy", "train"]

_log = logging.getLogger(__name__)
_MOMENTUM = 0.9
_ALONE = Processes()


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
        stage: Which of a method's several runs this is, such as "round-2"; empty where there is one.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    eta_seconds: float
    stage: str = ""


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch came to.

    Attributes:
        epoch: Its number, from 1.
        loss: Mean training loss.
        accuracy: On the test set, in [0, 1]; None without one.
        seconds: How long it took, judging included.
        figures: What else the method measured, by name.
        stage: Which of a method's several runs it belongs to; empty where there is one.
    """

    epoch: int
    loss: float
    accuracy: float | None
    seconds: float
    figures: dict[str, float] = field(default_factory=dict)
    stage: str = ""


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to.

    Attributes:
        history: One record per epoch, those before a resumption included.
        seconds: Time spent in all epochs.
        sha256: Hash of the trained weights (`checkpoints.weights_sha256`).
        module: What was trained; another one than was given where the method makes one of its own.
    """

    history: tuple[EpochRecord, ...]
    seconds: float
    sha256: str
    module: nn.Module | None = field(default=None, compare=False, repr=False)

    @property
    def accuracy(self) -> float | None:
        """Accuracy on the test set after the last epoch, in [0, 1]; None without a test set."""
        return self.history[-1].accuracy


def train(
    model: nn.Module,
    data: Dataset,
    recipe: TrainingRecipe,
    *,
    method: Method | None = None,
    test: Dataset | None = None,
    checkpoint: Path | None = None,
    curves: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    processes: Processes = _ALONE,
) -> TrainingResult:
    """Train a classifier, in place where its method does not make another one of it.

    The same initial weights, data, recipe, method, thread count and machine give the same weights, bit for
    bit; so does a run that was killed and started again with the same `checkpoint`: epochs already done are
    not repeated, one that was not done is started again from its beginning.

    Args:
        model: Takes (N, C, H, W) float32 pixels in [0, 1], returns (N, classes) logits.
        data: What to train on.
        recipe: The settings of the loop.
        method: How a batch becomes a loss; by default `Standard()`.
        test: Judged after each epoch.
        checkpoint: File that holds the state after each epoch; resumed from if it exists. A method of several
            runs puts the name of each behind its stem.
        curves: CSV file of loss, accuracy and the method's figures by epoch, rewritten after each.
        progress: Called after each batch.
        processes: This process among those that train together.

    Returns:
        History, time, the hash of the weights and the trained module.

    Raises:
        DataError: The model cannot take the images, or has fewer outputs than they have classes.
        RecipeError: The method does not fit the model.
        CheckpointError: The checkpoint is of another run (weights, data or recipe), or unreadable.
        OutputError: The checkpoint or the curves cannot be written.
    """
    for images in (data, test):
        if images is not None:
            _check_fit(model, images)
    before: list[EpochRecord] = []

    def run(network: nn.Module, images: Dataset, chosen: Method, stage: str = "") -> TrainingResult:
        file = checkpoint.with_stem(f"{checkpoint.stem}-{stage}") if checkpoint and stage else checkpoint
        loop = _Loop(images, recipe, chosen, test, file, curves, progress, processes, stage, tuple(before))
        result = loop.run(network)
        before.extend(result.history)
        return result

    with _repeatable():
        result = (Standard() if method is None else method).fit(model, data, recipe.seed, run)
    history = tuple(before)
    return TrainingResult(history, sum(record.seconds for record in history), result.sha256, result.module)


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
            logits = model(pixels_of(torch.from_numpy(data.images[first : first + batch_size])))
            labels = torch.from_numpy(data.labels[first : first + batch_size])
            correct += int((logits.argmax(1) == labels).sum())
    model.train(was_training)
    return correct / len(data)


@dataclass(frozen=True, eq=False)
class _Loop:
    """One run over the epochs: everything but the network, which `run` trains."""

    data: Dataset
    recipe: TrainingRecipe
    method: Method
    test: Dataset | None
    checkpoint: Path | None
    curves: Path | None
    progress: Callable[[Progress], None] | None
    processes: Processes
    stage: str
    before: tuple[EpochRecord, ...]

    def run(self, model: nn.Module) -> TrainingResult:
        """Train all epochs that the checkpoint does not hold yet."""
        recipe = self.recipe
        model = self.method.prepare(model, self.data)
        run = _run_identity(model, self.data, recipe, self.method)
        optimizer = _optimizer(model, recipe)
        history: list[EpochRecord] = []
        if self.checkpoint is not None and self.checkpoint.exists():
            state = read_training_state(self.checkpoint, run)
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            history = [EpochRecord(**record) for record in state["history"]]
            _log.info("resuming %s after epoch %d of %d", self.checkpoint, len(history), recipe.epochs)
        half = recipe.precision == "bfloat16"
        if half:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network = Network(model, half, recipe.label_smoothing)
        for epoch in range(len(history), recipe.epochs):
            start = time.perf_counter()
            loss = self._epoch(network, optimizer, epoch)
            self.processes.agree(model)
            judged, figures = self._judged(network)
            seconds = time.perf_counter() - start
            history.append(EpochRecord(epoch + 1, loss, judged, seconds, figures, self.stage))
            _log.info("epoch %d of %d: %s", epoch + 1, recipe.epochs, history[-1])
            self._keep(run, model, optimizer, history)
        model = self.method.finish(model)
        model.eval()
        seconds = sum(record.seconds for record in history)
        return TrainingResult(tuple(history), seconds, weights_sha256(model), model)

    def _epoch(self, network: Network, optimizer: torch.optim.Optimizer, epoch: int) -> float:
        """Train one epoch, whose randomness depends on seed and epoch alone; return the mean loss."""
        recipe, data, model = self.recipe, self.data, network.module
        torch.manual_seed(_epoch_seed(recipe.seed, epoch))
        images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
        batches = torch.split(torch.randperm(len(data)), recipe.batch_size)
        steps = recipe.epochs * len(batches)
        model.train()
        clipped = _layer_weights(model) if recipe.weight_clip is not None else []
        start, total = time.perf_counter(), 0.0
        for number, chosen in enumerate(batches):
            step = epoch * len(batches) + number
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate_at(step, steps)
            batch = _mirrored(_shifted(images[chosen], recipe.shift), flip=recipe.flip)
            optimizer.zero_grad()
            loss = self._gradient(network, batch, labels[chosen], step / steps)
            optimizer.step()
            for weight in clipped:
                _clip_outliers(weight, recipe.weight_clip or 0.0)
            total += loss * len(chosen)
            if self.progress is not None:
                done = number + 1
                left = (recipe.epochs - epoch) * len(batches) - done
                eta = (time.perf_counter() - start) / done * left
                self.progress(Progress(epoch + 1, recipe.epochs, done, len(batches), loss, eta, self.stage))
        return total / len(data)

    def _gradient(self, network: Network, batch: Tensor, labels: Tensor, done: float) -> float:
        """Put the gradient of the batch's mean loss into the parameters; return the loss."""
        mine = self.processes.share(torch.arange(len(batch)))
        weight = len(mine) / len(batch)
        value = 0.0
        if len(mine):
            loss = self.method.loss(network, pixels_of(batch[mine]), labels[mine], done)
            loss.backward()  # type: ignore[no-untyped-call]
            value = loss.item() * weight
        self.processes.average(network.module, weight)
        return self.processes.sum(value)

    def _judged(self, network: Network) -> tuple[float | None, dict[str, float]]:
        """Return accuracy and further figures on the test set; every process measures them alike."""
        if self.test is None:
            return None, {}
        return accuracy(network.module, self.test), self.method.figures(network, self.test)

    def _keep(
        self, run: str, model: nn.Module, optimizer: torch.optim.Optimizer, history: list[EpochRecord]
    ) -> None:
        """Write state and curves, in the first process; the others go on when they are written."""
        if self.processes.first and self.checkpoint is not None:
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "history": [asdict(record) for record in history],
            }
            write_training_state(self.checkpoint, run, state)
        if self.processes.first and self.curves is not None:
            write_curves(self.curves, [asdict(record) for record in (*self.before, *history)])
        self.processes.wait()


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


def _mirrored(images: Tensor, *, flip: bool) -> Tensor:
    """Mirror every other image, left to right, by chance."""
    if not flip:
        return images
    chosen = torch.rand(len(images)) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


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
            logits = model(pixels_of(torch.from_numpy(data.images[:1])))
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


def _run_identity(model: nn.Module, data: Dataset, recipe: TrainingRecipe, method: Method) -> str:
    """Hash of all that decides a run, to recognise its checkpoint."""
    settings = json.dumps([recipe.as_dict(), method.settings()], sort_keys=True)
    return hashlib.sha256("\n".join((weights_sha256(model), data.sha256(), settings)).encode()).hexdigest()


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
