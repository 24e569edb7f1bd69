"""`ohmfold hardware`: profiles of crossbar accelerators: list them, show one, start a new one."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Changes, Json  # noqa: TC001 - typer reads the annotations
from .output import check_writable, print_json, say, table

if TYPE_CHECKING:
    from ..hardware import Hardware

__all__ = ["app", "chosen_profile"]

app = typer.Typer(
    help="Profiles of crossbar accelerators: list, show, start a new one.", no_args_is_help=True
)

Profile = Annotated[str, typer.Argument(metavar="NAME", help="A preset, or the path of a TOML file.")]


@app.command("list")
def list_profiles(*, as_json: Json = False) -> None:
    """List the profiles that come with ohmfold."""
    from ..hardware import load_hardware, preset_names

    profiles = [load_hardware(name) for name in preset_names()]
    if as_json:
        print_json({"profiles": [_summary(profile) for profile in profiles]})
        return
    table(
        "Hardware profiles",
        ["name", "mapping", "tile", "bits of cell/DAC/ADC", "not ideal", "source"],
        [_row(profile) for profile in profiles],
        left=6,
    )
    say(
        "`ohmfold hardware show NAME` prints every field; "
        "`ohmfold hardware new FILE --from NAME` makes a copy to change."
    )


@app.command("show")
def show(name: Profile, *, changes: Changes = None, as_json: Json = False) -> None:
    """Print a profile as TOML, every field with its value; what is printed can be used as a file."""
    from ..hardware import remarks

    profile = chosen_profile(name, changes)
    found = remarks(profile)
    if as_json:
        print_json({"profile": profile.model_dump(mode="json"), "remarks": found})
        return
    say(profile.to_toml().rstrip(), *(f"# {remark}" for remark in found))


@app.command("new")
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="The file to write; it must not exist.")],
    *,
    preset: Annotated[
        str, typer.Option("--from", metavar="PRESET", help="The preset to start from.")
    ] = "template",
) -> None:
    """Start a profile of your own: a copy of a preset, comments included, named after the file."""
    from ...errors import OutputError
    from ..hardware import preset_text

    text = _named(preset_text(preset), preset, file.stem)
    check_writable(file)
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise OutputError(f"cannot write {file}: it exists, expected the name of a new file") from None
    except OSError as error:
        raise OutputError(f"cannot write {file}: {error.strerror or error}") from None
    say(f"wrote {file}; `ohmfold hardware show {file}` checks it")


def chosen_profile(name: str, changes: list[str] | None) -> Hardware:
    """Return the profile of that name or path, with what `--set` changes.

    Raises:
        HardwareError: There is no such profile, or a change is not one of its own.
    """
    from ..hardware import Hardware, load_hardware, parse_changes

    wanted = parse_changes(Hardware, changes or [])
    return load_hardware(name).with_changes(wanted)


def _named(text: str, old: str, name: str) -> str:
    """Return the text of a preset under another name, checked."""
    import tomli_w

    from ..hardware import Hardware

    before, after = (tomli_w.dumps({"name": value}).rstrip() for value in (old, name))
    renamed = text.replace(before, after, 1)
    Hardware.from_toml(renamed)
    return renamed


def _row(profile: Hardware) -> tuple[str, ...]:
    from ..hardware import non_idealities

    array, adc = profile.array, profile.adc
    resolution = "ideal" if adc.bits is None else f"{adc.bits} ({adc.range})"
    return (
        profile.name,
        array.mapping,
        f"{array.rows} x {array.columns}",
        f"{array.cell_bits} / {profile.dac.bits} / {resolution}",
        ", ".join(non_idealities(profile)) or "nothing",
        profile.source,
    )


def _summary(profile: Hardware) -> dict[str, object]:
    from ..hardware import non_idealities

    return {
        "name": profile.name,
        "description": profile.description,
        "source": profile.source,
        "mapping": profile.array.mapping,
        "rows": profile.array.rows,
        "columns": profile.array.columns,
        "cell_bits": profile.array.cell_bits,
        "dac_bits": profile.dac.bits,
        "adc_bits": profile.adc.bits,
        "adc_range": profile.adc.range,
        "non_idealities": non_idealities(profile),
    }
