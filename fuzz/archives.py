"""Mutations of zip archives, and of the arrays in an npz: shapes of terabytes, names that climb, members that swell."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
import zlib
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from .plain import EDGES, mutated_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

__all__ = ["Member", "archive_of", "bomb", "members_of", "mutated_archive", "mutated_npy", "mutated_npz"]

_DATE = (1980, 1, 1, 0, 0, 0)
_NAMES = (
    "../outside.npy",
    "/etc/outside.npy",
    "a/../../b.npy",
    "C:\\x.npy",
    "images.npy",
    "",
    "é.npy",
    "x" * 3000,
)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_SYMLINK = 0o120777 << 16
_SHAPES = (
    "()", "(0,)", "(1,)", "(-1,)", "(1000000000000,)", "(1000000, 1000000, 1)", "(9223372036854775807,)",
    "(18446744073709551616,)", "(4294967296, 4294967296, 0)", "(True,)", "(1.5,)", "5", "'a'", "[1, 2]", "(" * 2000,
    "(" + "1," * 70 + ")", "(" + "1," * 3000 + ")", "(2, 1, 4, 4)", "(2,)",
)  # fmt: skip
_TYPES = (
    "'|O'", "'|u1'", "'<i8'", "'>i8'", "'<f4'", "'<f2'", "'<c16'", "'|V0'", "'|S0'", "'<U1000000000'", "'|S2147483647'",
    "[('a', '|O')]", "[('a', '<i4'), ('b', '|u1')]", "('<f8', (1000000, 1000000))", "'M8[ns]'", "'?'", "''", "1",
    "None", "'" + "f8," * 1000 + "'",
)  # fmt: skip


class Member(NamedTuple):
    """One file of an archive: name, content, method of compression, attributes."""

    name: str
    data: bytes
    method: int = zipfile.ZIP_STORED
    attributes: int = 0


def members_of(data: bytes) -> list[Member]:
    """Return the members of a sound archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [Member(info.filename, archive.read(info), info.compress_type) for info in archive.infolist()]


def archive_of(members: list[Member]) -> bytes:
    """Return an archive of the members, which may share names; the same members make the same bytes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for member in members:
            info = zipfile.ZipInfo(member.name, _DATE)
            info.external_attr = member.attributes
            archive.writestr(info, member.data, member.method)
    return buffer.getvalue()


@cache
def bomb(megabytes: int = 600) -> bytes:
    """Return so many megabytes of zeros as a raw deflate stream of a thousandth of that."""
    press = zlib.compressobj(9, wbits=-15)
    block = bytes(1 << 20)
    return b"".join(press.compress(block) for _ in range(megabytes)) + press.flush()


def mutated_archive(
    rng: Random, data: bytes, mutate: Callable[[Random, Member], bytes], other: bytes = b""
) -> bytes:
    """Return an archive after mutations of a member, of names and directory, or of its bytes.

    Args:
        rng: Where choices come from.
        data: A sound archive.
        mutate: Mutates the content of a member.
        other: A second file to splice with.
    """
    choice = rng.random()
    if choice < 0.25:
        return mutated_bytes(rng, data, other)
    members = members_of(data)
    at = rng.randrange(len(members))
    member = members[at]
    if choice < 0.75:
        members[at] = member._replace(data=mutate(rng, member))
        return archive_of(members)
    kind = 6 if rng.random() < 0.01 else rng.randrange(6)
    if kind == 0:
        members[at] = member._replace(name=rng.choice(_NAMES))
    elif kind == 1:
        members[at] = member._replace(method=rng.choice(_METHODS))
    elif kind == 2:
        members[at] = Member(member.name, b"../../outside.bin", attributes=_SYMLINK)
    elif kind == 3:
        members.insert(rng.randrange(len(members) + 1), member._replace(data=mutate(rng, member)))
    elif kind == 4:
        del members[at]
    elif kind == 5:
        return _lying_sizes(rng, archive_of(members))
    else:
        return _with_bomb(members, at)
    return archive_of(members)


def mutated_npz(rng: Random, data: bytes, other: bytes = b"") -> bytes:
    """Return an npz after mutations of its arrays or of the archive."""
    return mutated_archive(rng, data, lambda chance, member: mutated_npy(chance, member.data), other)


def mutated_npy(rng: Random, data: bytes) -> bytes:
    """Return an array's file after mutations of its header or of its bytes."""
    if data[:6] != b"\x93NUMPY" or rng.random() < 0.3:
        return mutated_bytes(rng, data)
    length = struct.unpack("<H", data[8:10])[0]
    header, values = data[10 : 10 + length].decode("latin-1"), data[10 + length :]
    version = (1, 0)
    kind = rng.randrange(6)
    if kind <= 1:
        header = _replaced(header, "'shape': ", rng.choice(_SHAPES))
    elif kind == 2:
        header = _replaced(header, "'descr': ", rng.choice(_TYPES))
    elif kind == 3:
        header = _replaced(header, "'fortran_order': ", rng.choice(("True", "None", "1", "'a'")))
    elif kind == 4:
        version = rng.choice(((2, 0), (3, 0), (9, 9), (0, 0)))
    else:
        header = mutated_bytes(rng, header.encode("latin-1")).decode("latin-1")
    if rng.random() < 0.2:
        values = mutated_bytes(rng, values)
    claimed = len(header) if rng.random() < 0.9 else rng.choice(EDGES)
    width = "<H" if version == (1, 0) else "<I"
    size = struct.pack(width, claimed & (0xFFFF if width == "<H" else 0xFFFFFFFF))
    return b"\x93NUMPY" + bytes(version) + size + header.encode("latin-1", "replace") + values


def _replaced(header: str, key: str, value: str) -> str:
    """Put another value after a key of an array's header."""
    before, found, after = header.partition(key)
    end = after.find(", '") if ", '" in after else after.find("}")
    return before + found + value + after[end:] if found else header + value


def _lying_sizes(rng: Random, data: bytes) -> bytes:
    """Change sizes, checksum, method or offset in the directory."""
    found = bytearray(data)
    at = found.find(b"PK\x01\x02", rng.randrange(max(1, len(found) // 2)))
    place, width = rng.choice(
        ((10, "<H"), (16, "<I"), (20, "<I"), (24, "<I"), (42, "<I"), (8, "<H"), (28, "<H"))
    )
    mask = 0xFFFF if width == "<H" else 0xFFFFFFFF
    if at >= 0:
        struct.pack_into(width, found, at + place, rng.choice(EDGES) & mask)
    return bytes(found)


def _with_bomb(members: list[Member], at: int) -> bytes:
    """Let a member begin as it did and go on with zeros for hundreds of megabytes."""
    head = members[at].data[:128]
    press = zlib.compressobj(9, wbits=-15)
    raw = press.compress(head) + press.flush(zlib.Z_FULL_FLUSH) + bomb()
    size, checksum = len(head) + (600 << 20), 0  # the checksum is compared when all has been read
    marked = list(members)
    marked[at] = members[at]._replace(data=raw, method=zipfile.ZIP_STORED)
    found = bytearray(archive_of(marked))
    start = found.find(raw) - 30 - len(members[at].name.encode())
    entry = found.find(b"PK\x01\x02", start + len(raw))
    for base, shift in ((start, 0), (entry, 2)):
        struct.pack_into("<H", found, base + 8 + shift, zipfile.ZIP_DEFLATED)
        struct.pack_into("<III", found, base + 14 + shift, checksum, len(raw), size)
    return bytes(found)
