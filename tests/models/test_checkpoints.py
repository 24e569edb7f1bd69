"""Weights on disk: what was saved is what is loaded, and nothing that could run code is."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from ohmfold.errors import CheckpointError, OutputError
from ohmfold.models.checkpoints import load_model, load_weights, save_weights, weights_sha256
from ohmfold.models.registry import build_model


@pytest.mark.parametrize("half", [True, False])
def test_saved_weights_come_back_rounded_at_most_to_half(tmp_path: Path, *, half: bool) -> None:
    model, other = build_model("mnist-resnet8", 1), build_model("mnist-resnet8", 2)
    save_weights(model, tmp_path / "m.safetensors", half=half)
    loaded = load_weights(tmp_path / "m.safetensors", other)
    for name, tensor in model.state_dict().items():
        kept = tensor.half().float() if half and tensor.is_floating_point() else tensor
        assert torch.equal(loaded[name], kept)
        assert torch.equal(other.state_dict()[name], kept)
        assert loaded[name].dtype == tensor.dtype


def test_metadata_name_the_architecture_and_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    digest = save_weights(build_model("mnist-vgg"), path)
    with safe_open(path, framework="pt") as file:
        (metadata,) = file.metadata().values()
    assert json.loads(metadata) == {"architecture": "mnist-vgg", "weights_sha256": digest}


def test_the_same_weights_give_the_same_file(tmp_path: Path) -> None:
    contents = set()
    for index in range(8):
        save_weights(build_model("mnist-vgg"), tmp_path / f"{index}.safetensors")
        contents.add((tmp_path / f"{index}.safetensors").read_bytes())
    assert len(contents) == 1


def test_models_are_rebuilt_from_safetensors_and_from_state_dicts(tmp_path: Path) -> None:
    model = build_model("mnist-mobilenet", 3)
    save_weights(model, tmp_path / "m.safetensors", half=False)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    torch.save({"model": model.state_dict(), "history": [1.0]}, tmp_path / "run.ckpt")
    for name in ("m.safetensors", "m.pt", "run.ckpt"):
        loaded = load_model(tmp_path / name)
        assert weights_sha256(loaded) == weights_sha256(model)
        assert not loaded.training


def test_unknown_architectures_load_as_weights_only(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_weights(nn.Linear(3, 2), path)
    assert sorted(load_weights(path)) == ["bias", "weight"]
    with pytest.raises(CheckpointError, match=r"architecture unknown.*mnist-cnn.*load_weights"):
        load_model(path)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    save_weights(nn.Linear(3, 2), tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="another architecture than Vgg"):
        load_weights(tmp_path / "m.safetensors", build_model("mnist-vgg"))


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code ran')",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickled_models_and_code_are_refused(tmp_path: Path) -> None:
    for name, content in (("module.pt", build_model("mnist-vgg")), ("evil.pt", _Evil())):
        torch.save(content, tmp_path / name)
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(_Evil()))
    for name in ("module.pt", "evil.pt", "plain.pkl"):
        with pytest.raises(
            CheckpointError, match=r"only safetensors and files that torch\.load\(weights_only=True\)"
        ):
            load_model(tmp_path / name)


@pytest.mark.parametrize("content", [3, [torch.zeros(1)], {"a": torch.zeros(1), "b": 2}])
def test_files_without_a_dictionary_of_tensors_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="expected a dictionary of tensors"):
        load_model(tmp_path / "m.pt")


@given(content=st.binary(max_size=100), suffix=st.sampled_from([".pt", ".safetensors"]))
def test_any_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"m{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        load_model(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    model = build_model("mnist-vgg")
    if suffix == ".pt":
        torch.save(model.state_dict(), path)
    else:
        save_weights(model, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="m"):
        load_model(path)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_weights(build_model("mnist-vgg"), path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(path)


def test_missing_files_are_refused_with_the_names_of_the_zoo() -> None:
    with pytest.raises(CheckpointError, match="expected a path or one of mnist-cnn"):
        load_model("no-such-model")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
def test_values_beyond_half_precision_are_refused_and_leave_no_file(tmp_path: Path, value: float) -> None:
    model = nn.Linear(2, 2)
    nn.init.constant_(model.bias, value)
    with pytest.raises(CheckpointError, match="bias"):
        save_weights(model, tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folders_are_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for home in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(OutputError, match="cannot be written"):
            save_weights(nn.Linear(2, 2), home / "m.safetensors")


def test_hash_depends_on_names_dtypes_shapes_and_values() -> None:
    base = {"w": torch.arange(4.0), "n": torch.tensor(3)}
    others = [
        base,
        {**base, "w": torch.arange(4.0).reshape(2, 2)},
        {**base, "w": torch.arange(4)},
        {**base, "n": torch.tensor(4)},
        {"v": base["w"], "n": base["n"]},
        {**base, "w": base["w"].to(torch.bfloat16)},
    ]
    assert len({weights_sha256(tensors) for tensors in others}) == len(others)
    assert weights_sha256(base) == weights_sha256(dict(reversed(base.items())))
