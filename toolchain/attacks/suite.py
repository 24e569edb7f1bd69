"""Suites: which attacks run, how strong, on whose gradient. They are data, one TOML file for each suite.

    title = "My suite"
    cascade = true                  # attack only what still stands (default: false, every attack on its own)
    include = ["noise"]             # the attacks of other suites first

    [[attacks]]
    name = "pgd-long"               # how results call it
    attack = "pgd"                  # a name of the catalogue
    source = "twin"                 # whose gradient: twin, parent, unmapped, substitute; left out: the attack's own
    epsilon = 0.3                   # left out: the campaign's radius
    settings = { steps = 200 }      # left out: the attack's defaults

A field that does not exist is an error that names it.
"""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ...errors import RecipeError
from .catalogue import ATTACKS, make_attack
from .epsilon import parse_epsilon

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.resources.abc import Traversable

    from .base import Attack
    from .epsilon import Norm

__all__ = ["Entry", "Suite", "SuiteFile", "load_suite", "suite_names", "suite_of", "suite_text"]

_SUFFIX = ".toml"
_BY_NAME = "by-name"
_LARGEST_FILE = 1 << 20

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]
Source = Literal["twin", "parent", "unmapped", "substitute"]
Epsilon = int | float | str


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Entry(_Model):
    """One attack of a suite.

    Attributes:
        name: How results call it; its own within a suite.
        attack: A name of the catalogue.
        source: Whose gradient it follows: `twin` (the artifact's own), `parent` (the float model that it was compiled
            from), `unmapped` (the twin of the artifact compiled without the mu-law map) or `substitute` (other models:
            one run for each). None: the twin where the attack follows a gradient.
        norm: What bounds it, of what the attack can be bound by. None: the campaign's, or else the attack's own.
        epsilon: The radius: an integer is pixel codes, a float a share of the pixel range (`"8/255"` too; for the
            L2 norm it may pass 1). None: the campaign's.
        radii: L2 radii, in units of the pixel range, at which an attack of least distance reports the accuracy.
        settings: Of the attack.
        note: What is known of where the strength is from; kept with the result.
    """

    name: Name
    attack: str
    source: Source | None = None
    norm: Literal["inf", "2", "none"] | None = None
    epsilon: Epsilon | None = None
    radii: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)
    note: str = ""

    @field_validator("radii", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:  # here an error would leave the validation, and not say where in the file it is
            attack = self.make()
            if self.epsilon is not None:
                parse_epsilon(self.epsilon, attack.norm)
        except RecipeError as error:
            raise ValueError(str(error)) from None
        if self.source is not None and not attack.needs_gradient:
            raise ValueError(f"the attack {self.attack!r} follows no gradient; leave source out")
        return self

    @property
    def gradient(self) -> Source | None:
        """Whose gradient the attack follows; None where it follows none."""
        if not ATTACKS[self.attack].needs_gradient:
            return None
        return self.source or "twin"

    def make(self, norm: Norm = "inf") -> Attack:
        """Return the attack with its settings.

        Args:
            norm: The campaign's: what bounds the attack where it can be, and the entry names no norm.

        Raises:
            RecipeError: The attack, its norm or a setting is unknown or out of range.
        """
        settings = dict(self.settings)
        if self.norm is not None:
            settings["norm"] = self.norm
        elif self.attack in ATTACKS and norm in ATTACKS[self.attack].norms:
            settings["norm"] = norm
        elif self.attack in ATTACKS:
            settings["norm"] = ATTACKS[self.attack].norms[0]
        return make_attack(self.attack, **settings)


class SuiteFile(_Model):
    """A suite as its file has it.

    Attributes:
        title: In words.
        description: What it is for.
        source: Where the attacks and their strengths are from.
        cascade: Whether an attack is run on those images alone that withstood the suite's earlier ones.
        include: Names of shipped suites whose attacks come first.
        attacks: In the order in which they run.
    """

    title: str
    description: str = ""
    source: str = ""
    cascade: bool = False
    include: tuple[str, ...] = ()
    attacks: tuple[Entry, ...] = ()

    @field_validator("include", "attacks", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.attacks and not self.include:
            raise ValueError("it holds no attack: expected [[attacks]] or include")
        names = [entry.name for entry in self.attacks]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two attacks are called {twice!r}; expected a name of its own for each")
        return self


class Suite(_Model):
    """A suite, ready to run.

    Attributes:
        name: Of the shipped suite, or of the file without its suffix.
        file: What its file says.
        sha256: Of the file's bytes.
    """

    name: str
    file: SuiteFile
    sha256: str

    @classmethod
    def from_toml(cls, text: str, name: str) -> Self:
        """Read a suite from TOML.

        Raises:
            RecipeError: It is not TOML, or a field is unknown or wrong; names the field.
        """
        try:
            values = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"suite {name}: not TOML: {error}") from None
        try:
            file = SuiteFile(**values)
        except ValidationError as error:
            raise RecipeError(f"suite {name}: {_one_line(error, values)}") from None
        return cls(name=name, file=file, sha256=hashlib.sha256(text.encode()).hexdigest())

    def expanded(self) -> tuple[Suite, ...]:
        """The suites that it includes, in order, and itself where it has attacks of its own; each of them once.

        Raises:
            RecipeError: An included suite does not exist, or suites include each other in a circle.
        """
        found: dict[str, Suite] = {}
        for suite in self._walk(()):
            found.setdefault(suite.name, suite)
        return tuple(found.values())

    def _walk(self, above: tuple[str, ...]) -> Iterator[Suite]:
        if self.name in above:
            raise RecipeError(f"suite {self.name}: it includes itself ({' > '.join((*above, self.name))})")
        for name in self.file.include:
            # A file is not let name other files: what it includes is shipped.
            yield from Suite.from_toml(suite_text(name), name)._walk((*above, self.name))  # noqa: SLF001 - of this class
        if self.file.attacks:
            yield self


def suite_names() -> tuple[str, ...]:
    """Return the names of the shipped suites, in alphabetical order."""
    files = (entry.name for entry in _folder().iterdir() if entry.name.endswith(_SUFFIX))
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in files))


def suite_text(name: str) -> str:
    """Return the TOML text of a shipped suite, comments included.

    Raises:
        RecipeError: There is no such suite; names the nearest.
    """
    names = suite_names()
    if name not in names:
        closest = difflib.get_close_matches(name, names, n=1)
        hint = f", the nearest is {closest[0]!r}" if closest else ""
        raise RecipeError(
            f"no suite {name!r}{hint}; expected one of {', '.join(names)}, or the path of a file (./{name}.toml)"
        )
    return (_folder() / f"{name}{_SUFFIX}").read_text(encoding="utf-8")


def load_suite(name_or_path: str | Path) -> Suite:
    """Return a shipped suite by its name, or the suite in a TOML file by its path.

    A text without a folder and without the suffix `.toml` is a name; anything else is a path.

    Raises:
        RecipeError: There is no such suite or file, or a field is wrong; names the file and the field.
    """
    path = Path(name_or_path)
    if not (isinstance(name_or_path, Path) or path.name != name_or_path or path.suffix == _SUFFIX):
        return Suite.from_toml(suite_text(name_or_path), name_or_path)
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise RecipeError(
                f"{path}: {path.stat().st_size} bytes; expected a suite of at most {_LARGEST_FILE}"
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise RecipeError(f"cannot read the suite {path}: {reason or error}") from None
    return Suite.from_toml(text, path.stem)


def suite_of(attacks: Sequence[str], steps: int | None = None) -> Suite:
    """Return a suite of single attacks, their settings at the defaults.

    Args:
        attacks: Names of the catalogue.
        steps: For those that have steps; None: their default.

    Raises:
        RecipeError: An attack is unknown, or named twice.
    """
    for name in attacks:
        make_attack(name)
    taking = [name for name in attacks if "steps" in (field.name for field in fields(ATTACKS[name]))]
    values = {
        "title": "Attacks by name",
        "attacks": [
            {"name": name, "attack": name, "settings": {"steps": steps} if steps and name in taking else {}}
            for name in attacks
        ],
    }
    return Suite.from_toml(tomli_w.dumps(values), _BY_NAME)


def _folder() -> Traversable:
    return resources.files(__package__) / "suites"


def _one_line(error: ValidationError, values: dict[str, Any]) -> str:
    """The first fault: where, what was found, how many more there are."""
    first, *rest = error.errors()
    where = ".".join(str(part) for part in first["loc"]) or "the file"
    if first["loc"][:1] == ("attacks",) and len(first["loc"]) > 1:
        named = values["attacks"][int(first["loc"][1])]
        own = named.get("name") if isinstance(named, dict) else None
        where += f" ({own})" if isinstance(own, str) else ""
    more = f" (and {len(rest)} more)" if rest else ""
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown field{more}"
    message = first["msg"].removeprefix("Value error, ")
    shown = "" if first["type"] == "value_error" else f", found {first['input']!r}"
    return f"{where}: {message}{shown}{more}"
