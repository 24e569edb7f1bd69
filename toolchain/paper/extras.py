"""What claims need and no table or figure holds: Eq. 1 on real images, mapped blocks, and training with both methods.

Everything is kept as cells, so that it is measured once.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import DataError, RecipeError
from ..runs import versions
from .bench import Bench
from .images import image_shape, paper_images
from .records import Cell, cell_of
from .strengths import load_strengths
from .subjects import ModuleJudge, Subject, make_subject
from .twelve import BITS, FAMILIES, MU, Checkpoint, Row, find_checkpoint, find_training, mapped_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import nn

    from .cells import Cells
    from .images import Images
    from .printed import DataName
    from .table import Budget

    Progress = Callable[[str, float], None]

__all__ = [
    "ADVERSARIAL_QAT",
    "ALONE",
    "ALONE_FLOAT",
    "ATTACKED",
    "CLEAN",
    "FIRST_BLOCK",
    "LAST_BLOCK",
    "UNMAPPED",
    "Extras",
    "LayerTerms",
    "measure_extras",
]

UNMAPPED = "Orig."
FIRST_BLOCK = "first block mapped"
LAST_BLOCK = "last block mapped"

ADVERSARIAL_QAT = "Adv. with QAT (Q)"
ALONE = "Adv. (Q)"
ALONE_FLOAT = "Adv."
_QAT = "QAT (Q)"
CLEAN, ATTACKED = "Clean", "PGD"

_TERMS_IMAGES = 64
_IMAGES = "images"


@dataclass(frozen=True)
class LayerTerms:
    """Eq. 1 of a layer of an artifact: mean lengths of W dx, dW x and dW dx over attacked images."""

    layer: str
    attack: float
    quantisation: float
    cross: float

    @property
    def of_quantisation(self) -> float:
        """The length of dW dx as a share of that of dW x."""
        return _share(self.cross, self.quantisation)

    @property
    def of_attack(self) -> float:
        """The length of dW dx as a share of that of W dx."""
        return _share(self.cross, self.attack)


@dataclass(frozen=True)
class Extras:
    """What was measured beside the tables, for one data set.

    Attributes:
        images: On what, in words; empty where the data set is not there.
        terms: Eq. 1 at each layer, by family.
        terms_of: How the images were attacked, in words.
        blocks: Clean accuracy of Orig. as it is and with a block mapped.
        trainings: By model, its clean accuracy and that under PGD at the ball of the tables.
        missing: Why something is not there, by its name; `images` where nothing is.
    """

    images: str = ""
    terms: Mapping[str, tuple[LayerTerms, ...]] = field(default_factory=dict)
    terms_of: str = ""
    blocks: Mapping[str, Cell] = field(default_factory=dict)
    trainings: Mapping[str, Mapping[str, Cell]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def reason(self, name: str) -> str:
        """Why something is not there, in words."""
        return self.missing.get(name) or self.missing.get(_IMAGES) or f"{name} was not measured"


def measure_extras(
    data: DataName,
    cells: Cells,
    *,
    budget: Budget,
    spec: str | None = None,
    called: str | None = None,
    zoo: Path | None = None,
    progress: Progress | None = None,
) -> Extras:
    """Measure what claims need beside the tables; what cannot be measured says why.

    Args:
        data: Which data set.
        cells: Where finished figures are kept.
        budget: Images and seed.
        spec: The data set (see `paper_images`).
        called: What it is called beside the figures; None: its own name.
        zoo: A folder of checkpoints, looked in before the package's own.
        progress: Called with what is done and its share.

    Raises:
        RecipeError: The folder of checkpoints does not exist.
        CheckpointError: Weights that are there cannot be loaded.
    """
    try:
        images = paper_images(data, spec, budget.count, budget.seed)
    except DataError as error:
        return Extras(missing={_IMAGES: str(error)})
    work = _Work(data, Bench(images.judged, cells, budget.seed), cells, images, zoo, {})

    def tell(what: str, share: float) -> None:
        if progress is not None:
            progress(f"{data}: {what}", share)

    radius = load_strengths(data, "white box").epsilon
    terms: dict[str, tuple[LayerTerms, ...]] = {}
    for place, family in enumerate(FAMILIES):
        tell(f"Eq. 1 of {family}", 0.5 * place / len(FAMILIES))
        if (file := work.file(find_checkpoint(data, family, zoo), family)) is not None:
            try:
                terms[family] = _terms(work, file, radius)
            except DataError as error:  # no image is right and could be attacked
                work.missing[family] = f"Eq. 1 of {family}: {error}"
    tell("mapped blocks", 0.5)
    blocks = _blocks(work) if data == "cifar10" else {}
    tell("training with both methods", 0.7)
    trainings = _trainings(work)
    count = min(_TERMS_IMAGES, len(images.judged))
    return Extras(
        f"{len(images.judged)} images of {called or images.judged.name}",
        terms,
        f"PGD of 40 steps within {radius} codes on the float model, {count} images",
        blocks,
        trainings,
        work.missing,
    )


@dataclass(frozen=True, eq=False)
class _Work:
    """What is measured with, and what could not be."""

    data: DataName
    bench: Bench
    cells: Cells
    images: Images
    zoo: Path | None
    missing: dict[str, str]

    def file(self, checkpoint: Checkpoint, name: str) -> Path | None:
        """The file of a checkpoint; without one, the reason is noted under a name."""
        if checkpoint.file is None:
            self.missing[name] = f"no checkpoint {checkpoint.name}; train it: {checkpoint.command}"
        return checkpoint.file


def _terms(work: _Work, file: Path, radius: int) -> tuple[LayerTerms, ...]:
    """Eq. 1 at the layers of the artifact that is compiled of a checkpoint, on images attacked on its float model."""
    from ...models.checkpoints import load_model, weights_sha256

    module = load_model(file)
    judged = work.images.judged.subset(min(_TERMS_IMAGES, len(work.images.judged)), work.bench.seed)
    depends = {
        "weights": weights_sha256(module),
        "data": judged.sha256(),
        "calibration": work.images.calibration.sha256(),
        "radius": radius,
        "seed": work.bench.seed,
        "bits": BITS,
        "versions": versions(),
    }

    def find() -> dict[str, Any]:
        from ...export import export_module
        from ..analysis.attacked_images import attack_float_model
        from ..analysis.error_terms import error_terms
        from ..analysis.quantised_layers import layers_of
        from ..compiler import compile as compile_model
        from ..recipe import Recipe

        artifact = compile_model(module, work.images.calibration.images, Recipe(weight_bits=BITS))
        network = layers_of(artifact, export_module(module, image_shape(work.data)))
        attacked = attack_float_model(module, judged, radius, seed=work.bench.seed)
        found = error_terms(network, attacked.clean, attacked.attacked)
        return {
            "layers": [
                asdict(LayerTerms(layer.name, one.attack, one.quantisation, one.cross))
                for layer, one in zip(network.layers, found, strict=True)
            ]
        }

    return tuple(LayerTerms(**one) for one in work.cells.figure("terms", depends, find)["layers"])


def _blocks(work: _Work) -> dict[str, Cell]:
    """Clean accuracy of the original network as it is, and with a block's two convolutions mapped."""
    from ...models.checkpoints import load_model
    from ...models.mu_law import apply_mu_law

    file = work.file(find_checkpoint(work.data, UNMAPPED, work.zoo), UNMAPPED)
    if file is None:
        return {}
    plain = load_model(file)
    last = [name for name in mapped_layers(plain, work.data) if name.startswith("units.")]
    first = [f"units.0.{name.rpartition('.')[2]}" for name in last]
    found = {UNMAPPED: cell_of(work.bench.clean(_subject(UNMAPPED, plain, mapped=False)))}
    for name, layers in ((FIRST_BLOCK, first), (LAST_BLOCK, last)):
        try:
            mapped = apply_mu_law(deepcopy(plain), dict.fromkeys(layers, MU))
        except RecipeError as error:  # the literal domain of the map, which the weights may pass
            work.missing[name] = str(error)
            continue
        found[name] = cell_of(work.bench.clean(_subject(name, mapped, mapped=layers)))
    return found


def _subject(name: str, module: nn.Module, *, mapped: list[str] | bool) -> Subject:
    from ...models.checkpoints import weights_sha256

    identity = {"weights": weights_sha256(module), "mapped": mapped}
    return Subject(Row(name), ModuleJudge(module), {"twin": module}, identity)


def _trainings(work: _Work) -> dict[str, dict[str, Cell]]:
    """Networks trained with quantisation in the loop, and the adversarially trained one, rounded to 3 bits."""
    alone = find_checkpoint(work.data, "Adv.", work.zoo)
    wanted = {
        ADVERSARIAL_QAT: (find_training(work.data, "adversarial-qat", work.zoo), Row("Adv.", quantised=True)),
        ALONE: (alone, Row("Adv.", quantised=True)),
        ALONE_FLOAT: (alone, Row("Adv.")),
        _QAT: (find_training(work.data, "qat", work.zoo), Row("Orig.", quantised=True)),
    }
    strength = load_strengths(work.data, "white box").columns[ATTACKED][0]
    found: dict[str, dict[str, Cell]] = {}
    for name, (checkpoint, row) in wanted.items():
        file = work.file(checkpoint, name)
        if file is None:
            continue
        subject = make_subject(row, work.data, file, work.images.calibration.images)
        found[name] = {
            CLEAN: cell_of(work.bench.clean(subject)),
            ATTACKED: cell_of(work.bench.attacked(subject, strength)),
        }
    return found


def _share(part: float, whole: float) -> float:
    """A length as a share of another; of one of 0 nothing is a share but 0."""
    if whole > 0:
        return part / whole
    return 0.0 if part == 0 else float("inf")
