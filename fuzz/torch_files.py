"""Mutations of safetensors files and of what `torch.save` writes: offsets, lengths, and pickles that ask for more."""

from __future__ import annotations

import json
import pickle
import struct
from typing import TYPE_CHECKING

from .archives import archive_of, members_of, mutated_archive
from .plain import EDGES, mutated_bytes
from .trees import json_bytes, mutated_tree

if TYPE_CHECKING:
    from random import Random

    from .archives import Member

__all__ = ["mutated_checkpoint", "mutated_safetensors"]

_STORAGE = b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
_PICKLES = (
    b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.",
    b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
    b"\x80\x02c__builtin__\ngetattr\n.",
    b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R.",
    b"\x80\x02}X\x01\x00\x00\x00acbuiltins\nbytearray\nJ\x00\x00\x00\x40\x85Rs.",
    b"\x80\x02ctorch\nTensor\nJ\x00\x00\x00\x40J\x00\x00\x00\x40\x86R.",
    b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(" + _STORAGE[1:]
    + b"K\x00\x8a\x06\x00\x00\x00\x00\x00\x01\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRs.",
    b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(" + _STORAGE[1:]
    + b"K\x00\x8a\x06\x00\x00\x00\x00\x00\x01\x85K\x00\x85\x89ccollections\nOrderedDict\n)RtRs.",
    b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".",
    b"\x80\x02]q\x00" + b"(h\x00h\x00h\x00h\x00eq\x00" * 40 + b".",
    b"\x80\x02\x8a\xff" + b"\xff" * 255 + b".",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    b"\x80\x02X\xff\xff\xff\x7fabc.",
)  # fmt: skip


def mutated_safetensors(rng: Random, data: bytes, other: bytes = b"") -> bytes:
    """Return a file whose header says something else, with its length right or wrong."""
    if rng.random() < 0.3:
        return mutated_bytes(rng, data, other)
    length = struct.unpack("<Q", data[:8])[0]
    header, values = json.loads(data[8 : 8 + length]), data[8 + length :]
    if rng.random() < 0.2 and "__metadata__" in header:
        own = mutated_tree(rng, json.loads(header["__metadata__"]["ohmfold"]))
        header["__metadata__"]["ohmfold"] = json_bytes(own).decode("utf-8", "replace")
        text = json.dumps(header).encode()
    elif rng.random() < 0.2:
        header["__metadata__"] = {
            "ohmfold": rng.choice(("[" * 90000, "1", "NaN", "9" * 5000, '{"architecture": []}'))
        }
        text = json.dumps(header).encode()
    else:
        text = json_bytes(mutated_tree(rng, header))
    size = len(text) if rng.random() < 0.85 else rng.choice(EDGES) & 0xFFFFFFFFFFFFFFFF
    return struct.pack("<Q", size) + text + values


def mutated_checkpoint(rng: Random, data: bytes, other: bytes = b"") -> bytes:
    """Return a checkpoint of which the pickle, a storage or the archive was mutated."""
    choice = rng.random()
    if choice < 0.02:
        return pickle.dumps({"weight": [1, 2]}) if choice < 0.01 else rng.choice(_PICKLES)
    if choice < 0.2:
        pickled = rng.choice(_PICKLES)
        return archive_of(
            [m._replace(data=pickled) if m.name.endswith("data.pkl") else m for m in members_of(data)]
        )
    return mutated_archive(rng, data, _content, other)


def _content(rng: Random, member: Member) -> bytes:
    return mutated_bytes(rng, member.data)
