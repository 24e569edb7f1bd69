"""`ohmfold verify`: every form of a network, run on the same images and compared bit by bit."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json, OnnxFile, Seed  # noqa: TC001 - typer reads the annotations
from .output import check_writable, fold_lines, print_json, progress_bar, say, table
from .quiet import import_onnxruntime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..program import Program
    from ..verify import VerifyReport

__all__ = ["verify"]

# What the search for inputs takes of the bar.
_SEARCH = 0.2


def verify(
    file: OnnxFile,
    *,
    data: Annotated[
        str | None,
        typer.Option(
            "--images",
            "--data",
            metavar="SPEC",
            show_default="OHMFOLD_DATA, or mnist-sample, where its images fit",
            help="Real images: mnist-sample, mnist, cifar10, an .npz, or a folder of IDX files or class folders.",
        ),
    ] = None,
    count: Annotated[
        int,
        typer.Option(
            "--count", min=1, help="Images in all: real, random, extremes, and searched for ties and bounds."
        ),
    ] = 256,
    witness: Annotated[
        list[str] | None,
        typer.Option(
            "--witness",
            metavar="all|NAME",
            show_default="all",
            help="A witness or a group of them, as often as needed: emulator, onnxruntime, twin, c99, ...",
        ),
    ] = None,
    reference_images: Annotated[
        int,
        typer.Option(
            min=1,
            help="Images that the int64 NumPy reference runs, which is slow, and C without optimisation.",
        ),
    ] = 64,
    emulated_images: Annotated[
        int,
        typer.Option(
            min=1, help="Images for emulated processors and ONNX's reference evaluator, which are slow."
        ),
    ] = 10,
    seed: Seed = 0,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE.xml", help="Write the outcome as JUnit XML there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a model in every witness there is and compare every integer; exit code 1 if a bit differs.

    Witnesses: the emulator on each instruction set, the int64 NumPy reference, onnxruntime at each level, ONNX's
    reference evaluator, the twin, compiled C on each compiler and processor found, and the other forms of the model.
    """
    if junit is not None:
        check_writable(junit)
    wanted = witness or ["all"]
    with progress_bar("verify") as progress:
        progress("loading", 0.0)
        import_onnxruntime()
        from ..artifact import Artifact, write_atomically
        from ..verify import SharedTwin, choose, make_inputs, require_some, to_junit, witnesses_of
        from ..verify import verify as compare_all

        artifact = Artifact.load(file)
        program = artifact.program
        twin = SharedTwin(program)
        chosen = choose(witnesses_of(artifact, twin), wanted)
        real = _real_images(program, data)
        inputs = make_inputs(
            program,
            count,
            real,
            seed=seed,
            twin=twin,
            progress=lambda step, share: progress(step, _SEARCH * share),
        )
        report = compare_all(
            artifact,
            inputs,
            chosen,
            reference_images=reference_images,
            slow_images=emulated_images,
            file=str(file),
            progress=lambda step, share: progress(step, _SEARCH + (1 - _SEARCH) * share),
        )
        if junit is not None:
            write_atomically(junit, to_junit(report))
    if as_json:
        print_json(report.model_dump(mode="json") | {"equal": report.equal})
    else:
        _show(report)
    if not report.equal:
        raise typer.Exit(1)
    require_some(report, wanted)


def _real_images(program: Program, spec: str | None) -> NDArray[np.uint8] | None:
    """The images of a data set; of the default one only where they fit the model."""
    from ...errors import DataError, MissingDependencyError
    from ...models.datasets import resolve_dataset
    from ..verify.accumulators import pixel_shape

    try:
        images: NDArray[np.uint8] = resolve_dataset(spec).images
    except (DataError, MissingDependencyError):
        if spec is not None:
            raise
        return None
    return None if spec is None and images.shape[1:] != pixel_shape(program) else images


def _show(report: VerifyReport) -> None:
    from ..verify import words

    table("", words.COLUMNS, words.cells(report))
    say(f"expected: {report.yardstick}")
    say(*words.searched(report), "")
    if "real" not in report.kinds:
        say("no real images: give some that fit the model with --images", "")
    fold_lines("not compared:", words.skipped_lines(report))
    fold_lines("notes:", report.notes)
    say(words.verdict(report))
