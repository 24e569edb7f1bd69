"""Weights on disk: safetensors and `torch.load(weights_only=True)`, never a pickle that can run code."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickletools
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from .archives import UNREADABLE, largest_content, open_archive
from .registry import ZOO, build_model, find_model, matching_architecture, model_names
from .replacing import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_log = logging.getLogger(__name__)
# All metadata is JSON under one key: safetensors writes several keys in random order, and the same weights
# shall give the same file.
_METADATA = "ohmfold"
_ARCHITECTURE = "architecture"
_HASH = "weights_sha256"
# All that dictionaries of tensors and plain values name; torch's own list for `weights_only` is longer, and lets a file
# ask for memory: `bytearray(2**40)`.
_NAMED = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch \w+Storage|"
    r"torch\.storage UntypedStorage|torch (Size|device|\w*int\w+|b?float\w+|bool|double|half)"
)


def save_weights(
    module: nn.Module, path: str | Path, *, half: bool = True, architecture: str | None = None
) -> str:
    """Write parameters and buffers as safetensors, under a temporary name until they are complete.

    Args:
        module: Whose weights.
        path: The file, replaced if it exists.
        half: Round floating-point tensors to float16.
        architecture: Name in the registry, kept in the metadata so that `load_model` can rebuild the module;
            None to look it up by names and shapes.

    Returns:
        Hash of the weights as stored (`weights_sha256`), which the metadata holds too.

    Raises:
        CheckpointError: A weight is not finite, or would not be in float16.
        OutputError: The file cannot be written.
    """
    tensors = {name: _stored(name, tensor, half=half) for name, tensor in module.state_dict().items()}
    digest = weights_sha256(tensors)
    metadata = {_ARCHITECTURE: architecture or matching_architecture(tensors), _HASH: digest}
    with replacing(Path(path)) as temporary:
        # Both libraries raise errors of their own where a disk is full: they serialise, and Python writes.
        temporary.write_bytes(safetensors.torch.save(tensors, {_METADATA: json.dumps(metadata)}))
    return digest


def load_weights(path: str | Path, module: nn.Module | None = None) -> dict[str, Tensor]:
    """Read a safetensors file; float16 tensors are widened to float32.

    Args:
        path: The file.
        module: Receives the weights, if given.

    Returns:
        Tensors by name.

    Raises:
        CheckpointError: The file is missing, not safetensors, damaged, or of another architecture.
    """
    tensors, _ = _read_safetensors(Path(path))
    if module is not None:
        _fill(module, tensors, str(path))
    return tensors


def load_model(name_or_path: str | Path) -> nn.Module:
    """Return a trained classifier in evaluation mode.

    Args:
        name_or_path: A model of the zoo ("mnist-cnn"), a safetensors file, or a file written by
            `torch.save` that holds a dictionary of tensors (or a checkpoint of `train`).

    Returns:
        The module, whose architecture comes from the file's metadata or from names and shapes.

    Raises:
        CheckpointError: Nothing of that name, file unreadable or pickled, architecture unknown.
    """
    path = _zoo_file(str(name_or_path)) or Path(name_or_path)
    if not path.is_file():
        bundled = ", ".join(sorted(file.stem for file in ZOO.glob("*.safetensors")))
        raise CheckpointError(
            f"{name_or_path} is neither a file nor a bundled model: expected a path or one of {bundled}"
        )
    if path.suffix == ".safetensors":
        tensors, metadata = _read_safetensors(path)
        architecture = metadata.get(_ARCHITECTURE) or matching_architecture(tensors)
    else:
        tensors = _state_dict(path)
        architecture = matching_architecture(tensors)
    if not isinstance(architecture, str) or find_model(architecture) is None:
        raise CheckpointError(
            f"{path}: architecture {architecture or 'unknown'}, expected one of {', '.join(model_names())}; "
            "build the module yourself and pass it to load_weights"
        )
    model = build_model(architecture)
    _fill(model, tensors, str(path))
    return model.eval()


def weights_sha256(weights: nn.Module | Mapping[str, Tensor]) -> str:
    """Hash of names, dtypes, shapes and values of all parameters and buffers, in hexadecimal."""
    tensors = weights.state_dict() if isinstance(weights, nn.Module) else weights
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_training_state(path: Path, run: str, state: Mapping[str, Any]) -> None:
    """Write what a training run needs to go on: tensors and plain values only.

    Raises:
        OutputError: The file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({"run": run, **state}, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_training_state(path: Path, run: str) -> dict[str, Any]:
    """Read what `write_training_state` wrote.

    Raises:
        CheckpointError: The file is unreadable or belongs to another run.
    """
    state = _torch_load(path)
    if not isinstance(state, dict) or state.get("run") != run:
        raise CheckpointError(
            f"{path}: not a checkpoint of this run (other initial weights, data or recipe): "
            "delete it or name another file"
        )
    return state


def _stored(name: str, tensor: Tensor, *, half: bool) -> Tensor:
    stored = tensor.detach().cpu().contiguous().clone()
    if half and stored.is_floating_point():
        stored = stored.to(torch.float16)
    if not bool(torch.isfinite(stored).all()):
        raise CheckpointError(
            f"{name}: holds NaN, infinity{' or values beyond float16 (try half=False)' if half else ''}"
        )
    return stored


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file, expected safetensors")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: not a complete safetensors file ({error})") from error
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{path}: metadata {_METADATA!r} is not a JSON object: the file is damaged")
    if _HASH in metadata and metadata[_HASH] != weights_sha256(tensors):
        raise CheckpointError(f"{path}: weights differ from the hash in their metadata: the file is damaged")
    return {name: _widened(tensor) for name, tensor in tensors.items()}, metadata


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _state_dict(path: Path) -> dict[str, Tensor]:
    loaded = _torch_load(path)
    tensors = loaded.get("model", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(
            f"{path}: holds a {type(tensors).__name__}, expected a dictionary of tensors by name"
        )
    return {str(name): _widened(tensor.clone()) for name, tensor in tensors.items()}


def _torch_load(path: Path) -> object:
    """Read what `torch.save` wrote; storages stay in the file (memory-mapped), so that none is larger than it.

    Raises:
        CheckpointError: The file is unreadable, names anything but tensors and plain values, or has tensors that are
            larger than what is stored of them.
    """
    try:
        _check_pickle(path)
        loaded = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    except CheckpointError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{path}: cannot be read ({reason}); only safetensors and files that "
            "torch.load(weights_only=True) reads are accepted"
        ) from error
    size = sum(tensor.numel() * tensor.element_size() for tensor in _tensors_in(loaded))
    if size > (most := largest_content(path.stat().st_size)):
        raise CheckpointError(
            f"{path}: its tensors have {size} bytes, expected at most {most} from a file of its size: save contiguous "
            "tensors, without the large ones of which they are parts"
        )
    return loaded


def _check_pickle(path: Path) -> None:
    """Look through the pickle of a checkpoint without running it.

    Raises:
        CheckpointError: It names something that no dictionary of tensors needs, or the archive is compressed.
    """
    accepted = "only safetensors and files that torch.load(weights_only=True) reads are accepted"
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path}: not loaded, since it is no archive of torch.save (torch 1.6 or newer); {accepted}: save "
            "model.state_dict() again"
        )
    try:
        with open_archive(path) as archive:
            infos = archive.infolist()
            if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
                raise CheckpointError(f"{path}: its archive is compressed, which torch.save never does")
            pickles = [info for info in infos if info.filename.endswith("data.pkl")]
            if len(pickles) != 1 or pickles[0].file_size > path.stat().st_size:
                raise CheckpointError(
                    f"{path}: not loaded, since it holds {len(pickles)} pickles; {accepted}"
                )
            names = [str(name) for name in _named_in(archive.read(pickles[0]))]
    except (*UNREADABLE, IndexError, OverflowError) as error:
        raise CheckpointError(f"{path}: not a complete checkpoint ({error}); {accepted}") from error
    strange = next((name for name in names if not _NAMED.fullmatch(name)), None)
    if strange is not None:
        raise CheckpointError(
            f"{path}: not loaded, since it is pickled and names {strange!r:.99}; {accepted}: save model.state_dict() "
            "and not the model"
        )


def _named_in(pickled: bytes) -> Iterator[object]:
    """Yield what a pickle names, "module name"; where the name itself is computed, the opcode."""
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL":
            yield argument
        elif opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"):
            yield opcode.name


def _tensors_in(loaded: object) -> Iterator[Tensor]:
    """Yield the tensors in nested dictionaries and lists, those of one object once."""
    waiting, seen = [loaded], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple | set):
            waiting.extend(value)


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise CheckpointError(
            f"{source}: weights of another architecture than {type(module).__name__} ({reason})"
        ) from error


def _zoo_file(name: str) -> Path | None:
    file = ZOO / f"{name}.safetensors"
    return file if Path(name).name == name and file.is_file() else None
