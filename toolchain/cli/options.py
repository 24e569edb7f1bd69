"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "LAST_CHIP",
    "BatchSize",
    "Changes",
    "ClusterAddress",
    "Data",
    "Json",
    "ModelArgument",
    "On",
    "OnnxFile",
    "OptionalImages",
    "Seed",
    "Workers",
]

LAST_CHIP = 2**63 - 1
"""The largest seed of a chip: what 64 bits hold."""

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="SPEC",
        show_default="OHMFOLD_DATA, or mnist-sample",
        help=(
            "mnist-sample, mnist, cifar10, an .npz of images and labels, "
            "or a folder of IDX files or of class folders."
        ),
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of everything random.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Images at a time.")]
OptionalImages = Annotated[
    int | None,
    typer.Option("--images", min=1, show_default="all", help="Use this many of the images, the first."),
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model of the zoo (mnist-cnn), a safetensors or torch checkpoint, or a float .onnx.",
    ),
]
OnnxFile = Annotated[Path, typer.Argument(metavar="FILE.onnx", help="An ONNX file.")]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Another value for a field of the profile, such as adc.bits=6; as often as needed.",
    ),
]
On = Annotated[
    str,
    typer.Option(
        "--on", metavar="emulator|onnxruntime|PROFILE:seed=N", help="Who judges; a profile is a chip of it."
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="Processes that share the jobs, and the processors; changes no result.",
    ),
]
ClusterAddress = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="tcp://HOST:PORT|local:N",
        help="Run the jobs on a Dask cluster, or on one of N workers that is started here; changes no result.",
    ),
]
