"""A small zoo, images to judge, and a table of them."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - a NamedTuple evaluates its annotations
from typing import NamedTuple

import pytest
from paper_zoos import write_judged, write_zoo

from ohmfold.models.checkpoints import save_weights
from ohmfold.toolchain.cli import main
from ohmfold.toolchain.paper import twelve


class Small(NamedTuple):
    """A zoo of the original model alone, images, a substitute, and the results of `paper table1 --quick`."""

    zoo: Path
    data: Path
    substitute: Path
    out: Path

    def arguments(self, part: str, out: Path, *more: str) -> list[str]:
        given = ["paper", part, "--out", out, "--data", self.data, "--zoo", self.zoo, *more]
        return [str(one) for one in given]


@pytest.fixture(scope="session")
def no_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("no zoo")


@pytest.fixture(autouse=True)
def _the_package_brings_no_weights(no_zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which weights come with the package is none of these tests' business."""
    monkeypatch.setattr(twelve, "ZOO", no_zoo)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, no_zoo: Path) -> Small:
    from paper_zoos import small_model

    folder = tmp_path_factory.mktemp("paper")
    substitute = folder / "other.safetensors"
    save_weights(small_model(7), substitute, architecture="mnist-vgg")
    found = Small(
        write_zoo(folder / "zoo", ""), write_judged(folder / "judged.npz", 40), substitute, folder / "out"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twelve, "ZOO", no_zoo)
        assert main(found.arguments("table1", found.out, "--quick", "--images", "6")) == 0
    return found


class Outcome(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def call_main(capsys: pytest.CaptureFixture[str]):
    def run(arguments: list[str]) -> Outcome:
        capsys.readouterr()
        return Outcome(main(arguments), *capsys.readouterr())

    return run
