"""A process that reads inputs one after the other, and the process that watches it.

The worker is forked, so that it starts at once with everything imported; a crash or a hang ends it, is written down,
and another one goes on behind the input that did it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import mmap
import os
import random
import select
import shutil
import signal
import struct
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ohmfold.errors import OhmfoldError

from .limits import SECONDS, EscapeError, Watch, memory_limit, one_arena
from .readers import READERS, mutated, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .seeds import Files

__all__ = ["Finding", "Outcome", "input_of", "read_input", "run_inputs"]

_STATE = struct.Struct("<qdqq")
"""Number of the input being read (-1: none), since when, how many were read, how many were refused."""

_PATIENCE = 4.0
"""How many times `SECONDS` a worker may take by the clock on a busy machine, before it is taken for hanging."""


class Finding(NamedTuple):
    """Something other than success or an `OhmfoldError`.

    Attributes:
        reader, seed, number: The input.
        kind: Where findings of one cause agree: the error and the line that it came from.
        text: What happened.
    """

    reader: str
    seed: int
    number: int
    kind: str
    text: str


class Outcome(NamedTuple):
    """What became of a range of inputs."""

    read: int
    refused: int
    slowest: float
    findings: list[Finding]


def input_of(reader: str, seed: int, number: int, seeds: list[Files]) -> Files:
    """Return an input; number 0 and on to the last seed are the sound ones."""
    if number < len(seeds):
        return seeds[number]
    rng = random.Random(f"{reader} {seed} {number}")  # noqa: S311 - to be repeated, not to be secret
    return mutated(READERS[reader], rng, seeds)


def read_input(reader: str, files: Files, folder: Path, watch: Watch | None = None) -> str | None:
    """Read an input as a program would.

    Returns:
        The message of the refusal; None where it was read.

    Raises:
        BaseException: Whatever else comes out: a finding.
    """
    path = written(files, folder)
    try:
        size = sum(map(len, files.values()))
        with (
            memory_limit(size, READERS[reader].times),
            watch.reading() if watch else contextlib.nullcontext(),
        ):
            READERS[reader].read(folder, path)
    except OhmfoldError as error:
        text = str(error)
        if "\n" in text or not text.strip():
            raise ValueError(f"the message is not one line: {text!r:.300}") from None
        if "allocate" in text:
            raise MemoryError(text) from None
        return text
    return None


def run_inputs(
    reader: str, seed: int, numbers: range, seeds: list[Files], progress: Callable[[int], None] | None = None
) -> Outcome:
    """Read a range of inputs in worker processes.

    Args:
        reader: Name of the reader.
        seed: Of the campaign.
        numbers: Of the inputs.
        seeds: The sound inputs.
        progress: Told how many have been read.
    """
    findings: list[Finding] = []
    read = refused = 0
    slowest = 0.0
    start = numbers.start
    with _folder() as folder:
        while start < numbers.stop:
            part, died = _worker(reader, seed, range(start, numbers.stop), seeds, folder, progress)
            read, refused = read + part.read, refused + part.refused
            slowest = max(slowest, part.slowest)
            findings += part.findings
            start = numbers.stop if died is None else died + 1
    return Outcome(read, refused, slowest, findings)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder in memory where there is one; beside the inputs' own lies what links and names may lead to."""
    home = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a new folder in it
    with tempfile.TemporaryDirectory(prefix="ohmfold-fuzz.", dir=home) as outer:
        Path(outer, "outside.bin").write_bytes(bytes(64))
        yield Path(outer, "input")


def _worker(
    reader: str,
    seed: int,
    numbers: range,
    seeds: list[Files],
    folder: Path,
    progress: Callable[[int], None] | None,
) -> tuple[Outcome, int | None]:
    """Run one worker to its end; also return the number of the input that ended it, None where none did."""
    state = mmap.mmap(-1, _STATE.size)
    state[:] = _STATE.pack(-1, 0.0, 0, 0)
    end, own = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(end)
        _work(reader, seed, numbers, seeds, folder, state, own)
    os.close(own)
    lines, killed = _watch(process, end, state, progress)
    os.close(end)
    _, status = os.waitpid(process, 0)
    number, _, read, refused = _STATE.unpack(state[:])
    findings, slowest = [], 0.0
    for line in lines:
        record = json.loads(line)
        if "broken" in record:
            raise RuntimeError(f"{reader}: the worker failed\n{record['broken']}")
        slowest = max(slowest, record.get("slowest", 0.0))
        if "kind" in record:
            findings.append(Finding(reader, seed, record["number"], record["kind"], record["text"]))
    if not status:
        return Outcome(read, refused, slowest, findings), None
    what = (
        f"hangs: more than {SECONDS * _PATIENCE:g} s" if killed else f"ends the process: wait status {status}"
    )
    if os.WIFSIGNALED(status) and not killed:
        what = f"ends the process: {signal.Signals(os.WTERMSIG(status)).name}"
    if number < 0:
        raise RuntimeError(f"{reader}: the worker {what}, while it made an input")
    findings.append(Finding(reader, seed, number, what, what))
    return Outcome(read + 1, refused, slowest, findings), number


def _watch(
    process: int, end: int, state: mmap.mmap, progress: Callable[[int], None] | None
) -> tuple[list[str], bool]:
    """Collect a worker's lines; end it where an input takes too long."""
    data, killed = b"", False
    while True:
        ready, _, _ = select.select([end], [], [], 0.5)
        if ready:
            piece = os.read(end, 1 << 16)
            if not piece:
                return data.decode().splitlines(), killed
            data += piece
        number, since, read, _ = _STATE.unpack(state[:])
        if progress is not None:
            progress(read)
        if number >= 0 and time.monotonic() - since > SECONDS * _PATIENCE:
            killed = True
            os.kill(process, signal.SIGKILL)


def _work(
    reader: str, seed: int, numbers: range, seeds: list[Files], folder: Path, state: mmap.mmap, end: int
) -> None:
    """Read inputs until all have been read; never returns."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not os.environ.get("OHMFOLD_FUZZ_STDERR"):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        logging.disable()
        warnings.simplefilter("ignore")
        one_arena()
        _read_all(reader, seed, numbers, seeds, folder, state, end)
        code = 0
    except BaseException:  # noqa: BLE001 - told to the process that watches
        os.write(end, json.dumps({"broken": traceback.format_exc()}).encode() + b"\n")
    finally:
        os._exit(code)


def _read_all(
    reader: str, seed: int, numbers: range, seeds: list[Files], folder: Path, state: mmap.mmap, end: int
) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # of a worker that died
    watch = Watch(folder)
    read = refused = 0
    slowest = 0.0
    kinds: set[str] = set()
    for number in numbers:
        files = input_of(reader, seed, number, seeds)
        folder.mkdir(exist_ok=True)
        if "onnx" in reader or reader == "compile":
            (folder / "link.bin").symlink_to("../outside.bin")
        state[:] = _STATE.pack(number, time.monotonic(), read, refused)
        begun = time.process_time()
        record: dict[str, object] = {}
        try:
            refused += read_input(reader, files, folder, watch) is not None
        except EscapeError as error:
            record = {"kind": f"escapes: {str(error)[:120]}", "text": str(error)}
        except BaseException as error:  # noqa: BLE001 - what comes out is what is looked for
            record = {"kind": _kind(error), "text": f"{type(error).__name__}: {error}"[:500]}
            del error
        taken = time.process_time() - begun
        if taken > SECONDS:
            record = {"kind": f"takes {taken:.0f} s", "text": f"{taken:.1f} s of the processor"}
        state[:] = _STATE.pack(-1, 0.0, read := read + 1, refused)
        if taken > slowest:
            slowest = taken
        if record and (record["kind"] not in kinds or len(kinds) < 3):
            kinds.add(str(record["kind"]))
            os.write(end, json.dumps(record | {"number": number}).encode() + b"\n")
        shutil.rmtree(folder)
        if read % 500 == 0:
            gc.collect()
    os.write(end, json.dumps({"slowest": slowest}).encode() + b"\n")


def _kind(error: BaseException) -> str:
    """Error, and the innermost two of our own lines that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame for frame in frames if "/fuzz/" not in frame.filename and "site-packages" not in frame.filename
    ]
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in (own or frames)[-2:]]
    return f"{type(error).__name__} at {' > '.join(places)}"
