"""A fuzzing campaign on every file reader: only success or an `OhmfoldError` may come out.

    python -m fuzz --inputs 1000000 --seed 1                 all readers, the inputs divided by their shares
    python -m fuzz --reader onnx --reader npz --inputs 9000  some of them
    python -m fuzz --reader onnx --seed 1 --replay 12345     one input again, its error with its traceback
    python -m fuzz --reader onnx --seed 1 --replay 12345 --keep FOLDER     ... and its files

Inputs are small sound files of ohmfold's own writers, mutated by their structure (fields, headers, shapes, names,
sizes, nesting) and by their bytes. An input is a function of reader, seed and number (and of the versions of the
libraries that wrote the sound files): any finding can be repeated.

Every input is read in a process of its own kind with limits: 5 s; an address space that may grow by 256 times the
input's size and 256 MiB (8 GiB where a network is compiled, which runs it); no file but the input's own is
opened, nothing is written, nothing unpickled, nothing started.
`--log FILE` appends a line of JSON for every slice, with what has been counted and found.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohmfold.toolchain.cli.output import say

from .campaign import prepared_seeds, warm_up
from .limits import SECONDS
from .readers import READERS, shares
from .worker import Finding, input_of, read_input, run_inputs

if TYPE_CHECKING:
    from collections.abc import Sequence

_SLICE = 20_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign or repeat an input; returns 1 where something was found."""
    options = _options(arguments)
    names = options.reader or list(READERS)
    if options.replay is not None:
        return _replay(names[0], options)
    warm_up()
    total: Counter[str] = Counter()
    findings: list[Finding] = []
    counts = shares(options.inputs, names)
    with prepared_seeds(names) as seeds:
        for name in names:
            begun = time.monotonic()
            read = refused = 0
            slowest, found = 0.0, []
            for start in range(options.start, options.start + counts[name], _SLICE):
                stop = min(start + _SLICE, options.start + counts[name])
                part = run_inputs(name, options.seed, range(start, stop), seeds[name])
                read, refused = read + part.read, refused + part.refused
                slowest = max(slowest, part.slowest)
                found += part.findings
                _log(options.log, name, options.seed, start, part)
            seconds = time.monotonic() - begun
            say(
                f"{name:18} {read:8} inputs, {refused:8} refused, {len(found):4} findings, slowest {slowest:.2f} s, "
                f"{read / max(seconds, 1e-9):6.0f} a second"
            )
            total.update(inputs=read, refused=refused)
            findings += found
    for kind, first, count in _grouped(findings):
        say(f"\n{first.reader}: {kind} ({count} times)\n  {first.text}")
        say(f"  python -m fuzz --reader {first.reader} --seed {first.seed} --replay {first.number}")
    say(f"\n{total['inputs']} inputs, {total['refused']} refused, {len(findings)} findings")
    return 1 if findings else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzz the file readers.")
    parser.add_argument("--inputs", type=int, default=10_000, help="how many in all (default: 10000)")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations (default: 1)")
    parser.add_argument(
        "--start", type=int, default=0, help="number of the first input of each reader (default: 0)"
    )
    parser.add_argument("--reader", action="append", choices=list(READERS), help="some readers only")
    parser.add_argument("--replay", type=int, metavar="NUMBER", help="read one input of one reader again")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write the replayed input there")
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="append counts and findings as lines of JSON"
    )
    options = parser.parse_args(arguments)
    if options.replay is not None and len(options.reader or ()) != 1:
        parser.error("--replay takes one --reader")
    return options


def _replay(name: str, options: argparse.Namespace) -> int:
    """Read one input again; first in this process for its traceback, whose memory limit it shares."""
    import tempfile

    with prepared_seeds([name]) as seeds:
        files = input_of(name, options.seed, options.replay, seeds[name])
    if options.keep is not None:
        for file, content in files.items():
            path = options.keep / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        try:
            refusal = read_input(name, files, Path(folder, "input"))
        except Exception:  # noqa: BLE001 - it is shown
            say(traceback.format_exc())
            return 1
    seconds = time.process_time() - begun
    say(f"{'read' if refusal is None else f'refused: {refusal}'} ({seconds:.2f} s)")
    return 1 if seconds > SECONDS else 0


def _grouped(findings: list[Finding]) -> list[tuple[str, Finding, int]]:
    """Findings of one reader and kind: the first, and how many."""
    counted = Counter((finding.reader, finding.kind) for finding in findings)
    first: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        first.setdefault((finding.reader, finding.kind), finding)
    return [(key[1], first[key], count) for key, count in counted.most_common()]


def _log(path: Path | None, name: str, seed: int, start: int, part: Any) -> None:
    if path is None:
        return
    record = {"reader": name, "seed": seed, "start": start, **part._asdict()}
    record["findings"] = [finding._asdict() for finding in part.findings]
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    sys.exit(main())
