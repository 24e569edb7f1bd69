"""Every form of a network against every other, bit by bit: named networks on many images, and many random ones.

    python -m benchmarks.verify [--networks NAME ...] [--images 1000] [--reference-images 64] [--random 500] [--json]

The named ones are 3-bit artifacts of the bundled MNIST CNN, plain and with the mu-law map on its last layer, of a
wide ResNet-32 and of a MobileNet-like network with random weights. Fast witnesses run all the images, the int64 NumPy
reference and C compiled with -O0 and -O1 as many as `--reference-images` says, emulated processors
`--emulated-images`. Random networks (`verify_random`) run in every native witness; of compilers, each network takes
one level of gcc and one of clang in turn. The exit code is 1 if a single number differs.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import numpy as np

import ohmfold
from ohmfold.errors import DataError, OhmfoldError
from ohmfold.models.datasets import resolve_dataset
from ohmfold.toolchain.cli.output import print_json, progress_bar, say, table
from ohmfold.toolchain.verify import (
    REFERENCE_IMAGES,
    SLOW_IMAGES,
    SharedTwin,
    choose,
    make_inputs,
    verify,
    witnesses_of,
    words,
)

from .inference import CASES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ohmfold.toolchain.artifact import Artifact
    from ohmfold.toolchain.verify import VerifyReport

CALIBRATION_IMAGES = 256
_MNIST, _RESNET, _MOBILENET = CASES[0], CASES[1], CASES[2]
# Network, data set, layers with a mu-law map.
NETWORKS = {
    "mnist-cnn": (_MNIST, "mnist", {}),
    "mnist-cnn-mu-law": (_MNIST, "mnist", {"fc2": 255.0}),
    "wide-resnet-32": (_RESNET, "cifar10", {}),
    "mobilenet": (_MOBILENET, "cifar10", {}),
}


def real_images(name: str, split: str) -> NDArray[np.uint8] | None:
    """A data set's images; the bundled sample in MNIST's place, and none for CIFAR-10, where they are not here."""
    try:
        return resolve_dataset(name, split).images
    except DataError:
        return resolve_dataset("mnist-sample").images if name == "mnist" else None


def compiled(name: str) -> Artifact:
    """One of the named networks as a 3-bit artifact, calibrated on real images where they are here."""
    case, data, mu_law = NETWORKS[name]
    images = real_images(data, "train")
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (CALIBRATION_IMAGES, *case.image), np.uint8)
    recipe = ohmfold.Recipe(weight_bits=3, mu_law=mu_law)
    return ohmfold.compile(case.model().eval(), images[:CALIBRATION_IMAGES], recipe)


def verify_network(name: str, arguments: argparse.Namespace) -> VerifyReport:
    """Verify one of the named networks."""
    artifact = compiled(name)
    twin = SharedTwin(artifact.program)
    with progress_bar(name) as progress:
        inputs = make_inputs(
            artifact.program,
            arguments.images,
            real_images(NETWORKS[name][1], "test"),
            twin=twin,
            progress=progress,
        )
        return verify(
            artifact,
            inputs,
            choose(witnesses_of(artifact, twin), arguments.witness),
            reference_images=arguments.reference_images,
            slow_images=arguments.emulated_images,
            file=name,
            progress=progress,
        )


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS), help="which of the named"
    )
    parser.add_argument("--images", type=int, default=1000, help="images of a named network")
    parser.add_argument(
        "--reference-images", type=int, default=REFERENCE_IMAGES, help="of them, by int64 NumPy"
    )
    parser.add_argument(
        "--emulated-images", type=int, default=SLOW_IMAGES, help="of them, on emulated processors"
    )
    parser.add_argument("--witness", nargs="*", default=["all"], help="witnesses or groups of them")
    parser.add_argument("--random", type=int, default=500, help="how many random networks; 0 for none")
    parser.add_argument("--seed", type=int, default=0, help="of the random networks")
    parser.add_argument("--seconds", type=float, help="begin no further random network after so many")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser.parse_args(given)


def _show(report: VerifyReport) -> None:
    table(report.file or "", words.COLUMNS, words.cells(report))
    say(f"expected: {report.yardstick}", *words.searched(report), *words.skipped_lines(report))
    say(words.verdict(report), "")
    sys.stdout.flush()


def main(given: Sequence[str] | None = None) -> None:
    """Verify all that was asked for; print tables, or JSON."""
    arguments = _arguments(given)
    reports, random = [], None
    try:
        for name in arguments.networks:
            reports.append(verify_network(name, arguments))
            if not arguments.json:
                _show(reports[-1])
        if arguments.random:
            from .verify_random import show_random, verify_random

            random = verify_random(arguments.random, arguments.seed, arguments.seconds)
            if not arguments.json:
                show_random(random)
    except OhmfoldError as error:
        raise SystemExit(f"error: {error}") from None
    if arguments.json:
        print_json(
            {
                "networks": [report.model_dump(mode="json") | {"equal": report.equal} for report in reports],
                "random": None if random is None else random.document(),
            }
        )
    if not all(report.equal for report in reports) or (random is not None and not random.equal):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
