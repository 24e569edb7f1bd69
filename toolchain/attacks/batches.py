"""Batches of attacks as independent jobs: what they have in common, and how it travels to the workers that run them.

A batch is attacked on one thread of torch, wherever it is: sums of float32 products are split by the number of threads,
so that gradients differ in their last bits between two threads and one (seen for batches of 7 images at a dense layer).
"""

from __future__ import annotations

import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import UnsupportedError
from ..jobs import Package, Parts, array_from
from .state import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from .base import Attack
    from .campaign import Target
    from .planning import PlannedAttack
    from .sources import Model
    from .suite import Entry

__all__ = ["Aim", "AttackBench", "BatchJob", "read_bench"]

_PARENT = "parent"


@dataclass(frozen=True, eq=False)
class Aim:
    """An attack of a plan, as far as its batches depend on it; attributes as those of `PlannedAttack`."""

    entry: Entry
    attack: Attack
    radius: float
    source: str | None

    @classmethod
    def of(cls, one: PlannedAttack) -> Aim:
        """The aim of a planned attack."""
        return cls(one.entry, one.attack, one.radius, one.source)


@dataclass(frozen=True, eq=False)
class BatchJob:
    """One batch of an attack.

    Attributes:
        key: Of the attack.
        number: Of the batch.
        chosen: Places of its images among all, int64 `(n,)`, ascending.
    """

    key: str
    number: int
    chosen: NDArray[np.int64]


class AttackBench:
    """Attacks batches of a target.

    Args:
        target: What is attacked.
        aims: The attacks by their keys.
        files: Holds the models that the target's sources read, as long as the bench is there; None: nothing does.
    """

    def __init__(
        self,
        target: Target,
        aims: Mapping[str, Aim],
        files: tempfile.TemporaryDirectory[str] | None = None,
    ) -> None:
        self._target, self._aims, self._files = target, dict(aims), files

    def name(self, job: BatchJob) -> str:
        """Which batch it is, in words."""
        return f"batch {job.number} of {job.key}"

    def run(self, job: BatchJob, tell: Callable[[float], None]) -> Batch:
        """Attack a batch."""
        aim, target = self._aims[job.key], self._target
        tell(0.0)
        source = None if aim.source is None else target.sources[aim.source]
        began = time.perf_counter()
        with _one_thread():
            result = aim.attack(
                source,
                target.judge,
                target.data.images[job.chosen],
                target.data.labels[job.chosen],
                aim.radius,
                seed=_seed(target.seed, job.key, int(job.chosen[0])),
                batch_size=len(job.chosen),
                progress=lambda done, total: tell(done / total),
                source=aim.source,
            )
        tell(1.0)
        return Batch.of(job.chosen, result, time.perf_counter() - began)

    def pack(self) -> Package:
        """Return what a worker makes the same bench of.

        Raises:
            UnsupportedError: A model was given as a module in memory.
        """
        target, parts = self._target, Parts()
        judge, sources = target.judge, target.sources
        values = {
            "artifact": parts.add(judge.artifact.to_bytes()),
            "judge": {
                "name": judge.name.name,
                "profile": None if judge.name.hardware is None else judge.name.hardware.to_toml(),
                "seed": judge.name.seed,
            },
            "judge_calibration": _array(parts, judge.calibration),
            "calibration": _array(parts, sources.calibration),
            "models": {name: _sent(model, parts) for name, model in sources.models.items()},
            "data": target.data.name,
            "images": parts.add_array(target.data.images),
            "labels": parts.add_array(target.data.labels),
            "seed": target.seed,
            "aims": {
                key: [aim.entry.model_dump(mode="json"), aim.attack.norm, aim.radius, aim.source]
                for key, aim in self._aims.items()
            },
        }
        return Package(read_bench, values, parts.objects)


def read_bench(package: Package, threads: int) -> AttackBench:
    """Make the bench of a package, in a worker."""
    from ...models.image_data import Dataset
    from ..artifact import Artifact, parse_model
    from ..hardware import Hardware
    from .campaign import Target
    from .judges import ArtifactJudge, JudgeName
    from .sources import SUBSTITUTE, Sources
    from .suite import Entry

    values, objects = package.values, package.objects
    files = tempfile.TemporaryDirectory(prefix="ohmfold-models-")
    models = {name: _received(model, objects, Path(files.name)) for name, model in values["models"].items()}
    artifact = Artifact(parse_model(objects[values["artifact"]], "the artifact"))
    who = values["judge"]
    hardware = None if who["profile"] is None else Hardware.from_toml(who["profile"])
    judge = ArtifactJudge(
        artifact,
        JudgeName(who["name"], hardware, who["seed"]),
        calibration=_read(values["judge_calibration"], objects),
        threads=threads,
    )
    sources = Sources(
        artifact,
        parent=models.get(_PARENT),
        substitutes={
            name.removeprefix(SUBSTITUTE): model for name, model in models.items() if name != _PARENT
        },
        calibration=_read(values["calibration"], objects),
    )
    data = Dataset(
        values["data"], array_from(objects[values["images"]]), array_from(objects[values["labels"]])
    )
    aims = {}
    for key, (fields, norm, radius, source) in values["aims"].items():
        entry = Entry.model_validate(fields)
        aims[key] = Aim(entry, entry.make(norm), radius, source)
    return AttackBench(Target(judge, sources, data, seed=values["seed"]), aims, files)


def _seed(seed: int, key: str, first: int) -> int:
    """The seed of a batch: its own for each attack and each place."""
    words = np.random.SeedSequence([seed, first, *key.encode()]).generate_state(2)
    return int(words[0]) | (int(words[1]) & 0x7FFFFFFF) << 32


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _array(parts: Parts, array: NDArray[Any] | None) -> str | None:
    return None if array is None else parts.add_array(array)


def _read(name: str | None, objects: Mapping[str, bytes]) -> NDArray[Any] | None:
    return None if name is None else array_from(objects[name])


def _sent(model: Model, parts: Parts) -> dict[str, str]:
    """A model as JSON values: a file by its hash and its suffix, which says how it is read; one of the zoo by name."""
    if not isinstance(model, str | Path):
        raise UnsupportedError(
            f"found a {type(model).__name__} in memory; expected a file or a model of the zoo where workers run the "
            "attacks: save it (safetensors) and give its path, or run with one worker"
        )
    path = Path(model)
    if not path.is_file():
        return {"zoo": str(model)}
    return {"object": parts.add(path.read_bytes()), "suffix": path.suffix}


def _received(model: Mapping[str, str], objects: Mapping[str, bytes], folder: Path) -> str:
    if "zoo" in model:
        return model["zoo"]
    path = folder / f"{model['object']}{model['suffix']}"
    path.write_bytes(objects[model["object"]])
    return str(path)
