"""Training curves as a CSV file: one line an epoch."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from .replacing import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["write_curves"]

_COLUMNS = ("stage", "epoch", "loss", "accuracy", "seconds")


def write_curves(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write all epochs so far, the former file replaced.

    Args:
        path: The file.
        records: Epochs in order; `figures` holds further columns by name. What an epoch lacks is left empty.

    Raises:
        OutputError: The file cannot be written.
    """
    figures = list(dict.fromkeys(name for record in records for name in record["figures"]))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*_COLUMNS, *figures], restval="", lineterminator="\n")
    writer.writeheader()
    for record in records:
        row = {name: record[name] for name in _COLUMNS if record[name] is not None}
        writer.writerow({**row, **record["figures"]})
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
