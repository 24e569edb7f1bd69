"""`ohmfold train`: train a model of the registry by one of the methods."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Data, Json  # noqa: TC001 - typer reads the annotations
from .output import check_writable, count, percent, print_json, progress_bar, say

if TYPE_CHECKING:
    from ...models.image_data import Dataset
    from ...models.training import Progress

__all__ = ["train"]

_STATE = "training.pt"


def train(
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="Architecture, such as mnist-cnn.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.safetensors", help="Where the weights go.")],
    *,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe", metavar="NAME", help="The method: standard, adversarial, feedback, qat, ..."
        ),
    ] = "standard",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="A setting of the method, such as epsilon=0.3; as often as needed.",
        ),
    ] = None,
    data: Data = None,
    download: Annotated[
        bool,
        typer.Option("--download", help="Fetch MNIST from its public mirrors first, if it is not there."),
    ] = False,
    exclude: Annotated[
        str | None, typer.Option("--exclude", metavar="SPEC", help="Train without the images of this set.")
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option("--init", metavar="CKPT", help="Start from these weights, not from random ones."),
    ] = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            "--checkpoints",
            "--resume",
            metavar="FOLDER",
            help="Keep the state after each epoch there, and go on from it.",
        ),
    ] = None,
    curves: Annotated[
        Path | None,
        typer.Option("--curves", metavar="FILE.csv", help="Loss, accuracy and more by epoch, as it goes."),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 12,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 128,
    optimizer: Annotated[
        str, typer.Option(metavar="adam|sgd", help="With decoupled weight decay, or Nesterov.")
    ] = "adam",
    learning_rate: Annotated[float, typer.Option(help="The peak of the schedule.")] = 1e-3,
    schedule: Annotated[
        str, typer.Option(metavar="one-cycle|cosine|constant", help="Of the learning rate.")
    ] = "one-cycle",
    weight_decay: Annotated[float, typer.Option(help="Of the weights of layers.")] = 0.0,
    weight_clip: Annotated[
        float | None, typer.Option(help="Clip weights to this many of their layer's standard deviations.")
    ] = None,
    shift: Annotated[int, typer.Option(help="Largest random shift of an image, in pixels.")] = 0,
    flip: Annotated[bool, typer.Option("--flip", help="Mirror every other image, by chance.")] = False,
    label_smoothing: Annotated[float, typer.Option(help="Probability mass spread over all classes.")] = 0.0,
    precision: Annotated[
        str, typer.Option(metavar="float32|bfloat16", help="Of the forward pass.")
    ] = "float32",
    seed: Annotated[int, typer.Option(help="Of the initial weights, the order, the shifts.")] = 0,
    as_json: Json = False,
) -> None:
    """Train a classifier; print its test accuracy and the SHA-256 of its weights.

    Several processes train together under torchrun: torchrun --nproc-per-node 2 -m ohmfold train ...
    """
    from ...models.recipe import TrainingRecipe

    loop = TrainingRecipe(
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        learning_rate=learning_rate,
        schedule=schedule,
        weight_decay=weight_decay,
        weight_clip=weight_clip,
        shift=shift,
        flip=flip,
        label_smoothing=label_smoothing,
        precision=precision,
        seed=seed,
    )
    check_writable(out)
    if curves is not None:
        check_writable(curves)
    state = _state_file(checkpoints)

    from ...models.checkpoints import load_weights, save_weights
    from ...models.datasets import resolve_dataset
    from ...models.parallel import joined_processes
    from ...models.recipes import method_of
    from ...models.registry import build_model
    from ...models.training import train as run_training

    method = method_of(recipe, settings or [])
    if download:
        data = _downloaded(data)
    network = build_model(model, seed=loop.seed)
    if init is not None:
        load_weights(init, network)
    training = resolve_dataset(data, "train", exclude=exclude)
    test = _test_set(data, training)
    with joined_processes() as processes, progress_bar("train") as progress:

        def show(now: Progress) -> None:
            share = ((now.epoch - 1) + now.batch / now.batches) / now.epochs
            where = f"{now.stage}, " if now.stage else ""
            progress(f"{where}epoch {now.epoch} of {now.epochs}, loss {now.loss:.4f}", share)

        result = run_training(
            network,
            training,
            loop,
            method=method,
            test=test,
            checkpoint=state,
            curves=curves,
            progress=show if processes.first else None,
            processes=processes,
        )
    if not processes.first:
        return
    trained = network if result.module is None else result.module
    stored = save_weights(trained, out, architecture=model if trained is network else None)
    document = {
        "file": str(out),
        "model": model,
        "method": method.settings(),
        "training_images": len(training),
        "test_images": len(test) if test is not None else 0,
        "test_accuracy": result.accuracy,
        "epochs": [vars(record) for record in result.history],
        "seconds": result.seconds,
        "weights_sha256": result.sha256,
        "stored_weights_sha256": stored,
        "recipe": loop.as_dict(),
    }
    if as_json:
        print_json(document)
        return
    for record in result.history:
        judged = "" if record.accuracy is None else f", accuracy {100 * record.accuracy:.2f} %"
        more = "".join(f", {name} {value:.4f}" for name, value in record.figures.items())
        where = f"{record.stage}, " if record.stage else ""
        say(f"{where}epoch {record.epoch}: loss {record.loss:.4f}{judged}{more}, {record.seconds:.0f} s")
    say(f"trained {model} by {method.name} on {count(len(training))} images of {training.name}")
    if test is None or result.accuracy is None:
        say("test accuracy: not known, the data set has no test images of its own")
    else:
        correct = round(result.accuracy * len(test))
        say(f"test accuracy: {percent(correct, len(test))} ({count(correct)} of {count(len(test))})")
    say(
        f"SHA-256 of the weights: {result.sha256}",
        f"of those stored, rounded to float16: {stored}",
        f"wrote {out}",
    )


def _downloaded(spec: str | None) -> str:
    """Fetch MNIST into the cache folder unless it is found; files that are whole already are kept."""
    from ...errors import RecipeError
    from ...models.datasets import available_datasets, cache_folder
    from ...models.download import download_mnist

    if spec not in (None, "mnist"):
        raise RecipeError(f"--download fetches MNIST, but --data is '{spec}'; leave one of them out")
    if any(status.name == "mnist" and status.found for status in available_datasets()):
        return "mnist"
    with progress_bar("download") as progress:

        def show(name: str, done: int, total: int) -> None:
            progress(name, done / max(total, 1))

        download_mnist(cache_folder() / "mnist", progress=show)
    return "mnist"


def _state_file(folder: Path | None) -> Path | None:
    if folder is None:
        return None
    from ...errors import OutputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror or error}") from None
    check_writable(folder / _STATE)
    return folder / _STATE


def _test_set(spec: str | None, training: Dataset) -> Dataset | None:
    """The test split; None where there is none, or where the set has no splits: it was trained on."""
    from ...errors import DataError
    from ...models.datasets import resolve_dataset

    try:
        test = resolve_dataset(spec, "test")
    except DataError:
        return None
    known = {image.tobytes() for image in training.images}
    return None if test.images[0].tobytes() in known else test
