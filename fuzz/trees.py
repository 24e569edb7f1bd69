"""Mutations of JSON and TOML: values of other types, numbers without a number, keys twice, nesting without an end.

What neither writer would write (`NaN`, integers of 5,000 digits, lists 3,000 deep) stands as a marked string in the
tree and is put into the text.
"""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any

import tomli_w

from .plain import EDGES, mutated_text

if TYPE_CHECKING:
    from random import Random

__all__ = ["json_bytes", "mutated_json", "mutated_toml", "mutated_tree"]

_MARK = re.compile(r'"@@(\d+)@@"')
_RAW = (
    "NaN", "Infinity", "-Infinity", "nan", "inf", "-inf", "1e999", "-1e999", "1e-999", "-0.0", "0x10", "1_000", "00",
    "9" * 25, "-" + "9" * 25, "9" * 5000, "1." + "3" * 5000, "[" * 3000 + "]" * 3000, "[" * 90000,
    '{"a":' * 3000 + "1" + "}" * 3000, "{a=" * 3000 + "1" + "}" * 3000, "1979-05-27T07:32:00Z", "07:32:00",
    '"\\ud800"', '"\\u0000"', "''", "null", "[]", "{}", '{"a":1,"a":2}', "true", '"none"',
)  # fmt: skip
_TEXTS = (
    "",
    "none",
    "inf",
    "2",
    "\x00",
    "é\N{SNOWMAN}",
    "../../outside.bin",
    "/etc/hostname",
    "a" * 10000,
    "-1",
    "nan",
)


def mutated_json(rng: Random, data: bytes, other: bytes = b"") -> bytes:
    """Return a JSON text after mutations of its tree or of its characters."""
    if rng.random() < 0.3:
        return mutated_text(rng, data, other)
    return json_bytes(mutated_tree(rng, json.loads(data)))


def mutated_toml(rng: Random, data: bytes, other: bytes = b"") -> bytes:
    """Return a TOML text after mutations of its tree or of its characters."""
    if rng.random() < 0.4:
        return mutated_text(rng, data, other)
    import tomllib

    return _with_raw(tomli_w.dumps(mutated_tree(rng, tomllib.loads(data.decode()))))


def json_bytes(tree: Any) -> bytes:
    """Return a tree with marks as JSON."""
    return _with_raw(json.dumps(tree))


def mutated_tree(rng: Random, tree: Any) -> Any:
    """Return a tree of dictionaries, lists and values after one to three mutations."""
    found = {"": copy.deepcopy(tree)}
    for _ in range(rng.choice((1, 1, 2, 3))):
        _mutate_once(rng, found)
    changed = found[""]
    return changed if isinstance(changed, dict) else tree


def _mutate_once(rng: Random, root: dict[str, Any]) -> None:
    places = _places(root)
    holder, key = rng.choice(places)
    kind = rng.randrange(6)
    if kind <= 2:
        holder[key] = _strange(rng, holder[key])
    elif kind == 3 and holder is not root:
        del holder[key]
    elif kind == 4:
        giver, other = rng.choice(places)
        holder[key] = copy.deepcopy(giver[other])
    elif isinstance(holder, dict) and holder is not root:
        name = rng.choice((key + "_", key[:-1], "", "__class__", key.upper()))
        holder[name] = holder.pop(key) if rng.random() < 0.5 else copy.deepcopy(holder[key])
    elif isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))


def _places(root: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Every value as its holder and its key or index."""
    found: list[tuple[Any, Any]] = []
    waiting: list[Any] = [root]
    while waiting:
        holder = waiting.pop()
        for key in holder if isinstance(holder, dict) else range(len(holder)):
            found.append((holder, key))
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])
    return found


def _strange(rng: Random, value: Any) -> Any:
    kind = rng.randrange(7)
    if kind <= 1:
        return f"@@{rng.randrange(len(_RAW))}@@"
    if kind == 2:
        return rng.choice(EDGES)
    if kind == 3:
        return rng.choice((0.0, -0.5, 1e300, 1e-300, 0.1, 255.5))
    if kind == 4:
        return rng.choice(_TEXTS)
    if kind == 5:
        return [value] if rng.random() < 0.5 else {"a": value}
    if isinstance(value, bool) or not isinstance(value, int | float):
        return rng.random() < 0.5
    return rng.choice((value + 1, value - 1, -value, value * 1000, float(value), str(value)))


def _with_raw(text: str) -> bytes:
    return _MARK.sub(lambda found: _RAW[int(found.group(1)) % len(_RAW)], text).encode(
        "utf-8", "surrogatepass"
    )
