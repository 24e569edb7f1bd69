"""A bench: what independent jobs have in common, and how it travels to the processes that run them.

A bench travels as a package: a few JSON values, and objects (a model's file, the bytes of an array) that are named by
their SHA-256. The values name the objects that they mean. So a job is small, an object is sent to a worker once, and
what arrived is known to be what was sent. Objects are files and arrays, and none of them is ever unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from ...errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Tell = Callable[[float], None]
    Reader = Callable[["Package", int], "Bench[Any, Any]"]

__all__ = ["Bench", "Package", "Parts", "array_from", "sha256_of"]

Job = TypeVar("Job", contravariant=True)
Result = TypeVar("Result", covariant=True)


class Bench(Protocol[Job, Result]):
    """Runs jobs that do not depend on each other.

    Jobs and results are pickled where they travel, between processes of one run; a job should be small. What a job
    finds depends on the bench and the job alone: not on the process, the number of threads, or the jobs before it.
    """

    def name(self, job: Job, /) -> str:
        """What the job is, in a few words: an error about it begins with them."""
        ...

    def run(self, job: Job, tell: Tell, /) -> Result:
        """Run a job; `tell` takes the share of it that is done."""
        ...

    def pack(self) -> Package:
        """Return what a worker makes the same bench of.

        Raises:
            OhmfoldError: A part of it cannot travel.
        """
        ...


@dataclass(frozen=True, eq=False)
class Package:
    """A bench on its way.

    Attributes:
        reader: Makes the bench of the package and a number of threads; a public function of a module, since workers
            import it by its name.
        values: JSON values.
        objects: Bytes by their SHA-256.
    """

    reader: Reader
    values: Mapping[str, Any]
    objects: Mapping[str, bytes]

    @cached_property
    def sha256(self) -> str:
        """Names the package: reader, values and objects."""
        whole = [self.reader.__module__, self.reader.__qualname__, dict(self.values), sorted(self.objects)]
        return sha256_of(json.dumps(whole, sort_keys=True).encode())


class Parts:
    """Collects the objects of a package; equal ones are one."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def add(self, data: bytes) -> str:
        """Add an object, and return its name."""
        name = sha256_of(data)
        self.objects[name] = data
        return name

    def add_array(self, array: NDArray[Any]) -> str:
        """Add an array as the bytes of an npy file, and return its name."""
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
        return self.add(buffer.getvalue())


def array_from(data: bytes) -> NDArray[Any]:
    """Return the array that `Parts.add_array` added.

    Raises:
        DataError: The bytes are no array.
    """
    try:
        array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(
            f"found {len(data)} bytes that are no array ({error}); expected an npy file"
        ) from None
    return array


def sha256_of(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
