"""Download MNIST from its public mirrors: checksums, resumption, atomic rename. Needs no torch."""

from __future__ import annotations

import hashlib
import http.client
import logging
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_log = logging.getLogger(__name__)

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_CHUNK = 1 << 16
_TIMEOUT_SECONDS = 30.0
_ATTEMPTS_PER_MIRROR = 3


@dataclass(frozen=True)
class RemoteFile:
    """A published file: its name, size in bytes and SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


# The sizes and checksums are those of the files as first published.
MNIST_FILES = (
    RemoteFile(
        "train-images-idx3-ubyte.gz",
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    RemoteFile(
        "train-labels-idx1-ubyte.gz",
        28_881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    RemoteFile(
        "t10k-images-idx3-ubyte.gz",
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    RemoteFile(
        "t10k-labels-idx1-ubyte.gz",
        4_542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)


def download_mnist(
    folder: str | Path,
    *,
    progress: Callable[[str, int, int], None] | None = None,
    mirrors: Sequence[str] = MIRRORS,
    files: Sequence[RemoteFile] = MNIST_FILES,
) -> Path:
    """Download the four published IDX files of MNIST; files that are already complete are kept.

    What arrives is kept in `<name>.part`, so that a broken transfer goes on where it stopped (by an HTTP
    range request), in this call or a later one. A file gets its name only when its SHA-256 is right.

    Args:
        folder: Made if it is not there.
        progress: Called with file name, bytes so far, and bytes in all.
        mirrors: Base addresses, tried in order.
        files: What to fetch.

    Returns:
        The folder.

    Raises:
        DataError: No mirror delivered a file with the right checksum.
        OutputError: The folder cannot be written.
    """
    home = Path(folder)
    try:
        home.mkdir(parents=True, exist_ok=True)
        for file in files:
            if not _is_complete(home / file.name, file):
                _fetch_from_any(file, home, mirrors, progress)
    except OSError as error:
        raise OutputError(f"{home}: cannot be written ({error.strerror or error})") from error
    return home


class _TransferError(Exception):
    """A mirror failed; the next attempt may not."""


def _fetch_from_any(
    file: RemoteFile, home: Path, mirrors: Sequence[str], progress: Callable[[str, int, int], None] | None
) -> None:
    reasons = []
    for mirror in mirrors:
        for _ in range(_ATTEMPTS_PER_MIRROR):
            try:
                _fetch(file, mirror + file.name, home, progress)
            except _TransferError as error:
                reasons.append(f"{mirror}: {error}")
                _log.warning("%s from %s: %s", file.name, mirror, error)
            else:
                return
    raise DataError(
        f"{file.name} could not be downloaded ({'; '.join(dict.fromkeys(reasons))}): "
        f"try again later, or copy MNIST's IDX files into {home}"
    )


def _fetch(
    file: RemoteFile, address: str, home: Path, progress: Callable[[str, int, int], None] | None
) -> None:
    """Fetch what is missing of one file; raise `_TransferError` if it is not complete and right then."""
    part = home / f"{file.name}.part"
    done = part.stat().st_size if part.exists() else 0
    if done < file.size:
        _append(part, done, file, address, progress)
    if part.stat().st_size < file.size:
        raise _TransferError(f"broke off after {part.stat().st_size} of {file.size} bytes")
    if not _is_complete(part, file):
        part.unlink()
        raise _TransferError("delivered a file with another checksum")
    part.replace(home / file.name)


def _append(
    part: Path, done: int, file: RemoteFile, address: str, progress: Callable[[str, int, int], None] | None
) -> None:
    # S310: the addresses are those of MIRRORS or the caller's own, and a checksum judges what they give.
    request = urllib.request.Request(address, headers={"Range": f"bytes={done}-"} if done else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310
            resumes = response.status == http.HTTPStatus.PARTIAL_CONTENT
            done = done if resumes else 0
            with part.open("ab" if resumes else "wb") as out:
                # One byte more than expected is enough to see that a file is too long.
                while done <= file.size and (piece := response.read(_CHUNK)):
                    out.write(piece)
                    done += len(piece)
                    if progress is not None:
                        progress(file.name, done, file.size)
    except urllib.error.HTTPError as error:
        raise _TransferError(f"HTTP {error.code} {error.reason}") from error
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        ssl.SSLError,
        TimeoutError,
        ConnectionError,
    ) as error:
        raise _TransferError(str(getattr(error, "reason", error)) or type(error).__name__) from error


def _is_complete(path: Path, file: RemoteFile) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256
