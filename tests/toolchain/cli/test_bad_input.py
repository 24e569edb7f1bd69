"""What a user can do wrong: one line on standard error, exit code 2, and not one file more than before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch

from ohmfold.toolchain import doctor

from .conftest import float_model, start, wait_for, write_images

if TYPE_CHECKING:
    from pathlib import Path

WIDE = 132  # 4 * 132 * 132 codes of up to 255, times weights of 127, can pass 2**31


def listing(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def bad(files, tmp_path_factory) -> dict[str, Path]:
    """Files that are wrong, each in its own way, and right ones to go with them."""
    folder = tmp_path_factory.mktemp("bad")
    names = ("text.onnx", "cut.onnx", "sin.onnx", "nan.onnx", "inf.onnx", "big.onnx")
    made = {name: folder / name for name in names}
    made["text.onnx"].write_text("this is not ONNX\n")
    made["cut.onnx"].write_bytes(files.artifact.read_bytes()[:-200])
    onnx.save(float_model(middle="Sin"), made["sin.onnx"])
    weights = np.full((256, 3), 0.1, np.float32)
    for name, value in (("nan.onnx", np.nan), ("inf.onnx", np.inf)):
        broken = weights.copy()
        broken[5, 1] = value
        onnx.save(float_model(weights=broken), made[name])
    onnx.save(float_model(scale=3.0), made["big.onnx"])
    made["wide.onnx"] = folder / "wide.onnx"
    made["wide.npz"] = write_images(folder / "wide.npz", 4, side=WIDE)
    onnx.save(float_model(side=WIDE, weights=np.ones((4 * WIDE * WIDE, 3), np.float32)), made["wide.onnx"])
    made["pickle.pt"] = folder / "pickle.pt"
    torch.save(torch.nn.Linear(2, 2), made["pickle.pt"])
    made["notes.txt"] = folder / "notes.txt"
    made["notes.txt"].write_text("a file, not a folder")
    made["other"] = folder / "other"
    made["other"].mkdir()
    (made["other"] / "thesis.tex").write_text("precious")
    made["float.npz"] = write_images(folder / "float.npz", 6, dtype=np.float32)
    made["ten.npz"] = write_images(folder / "ten.npz", 6, side=10)
    made["empty.npz"] = folder / "empty.npz"
    np.savez(made["empty.npz"], images=np.zeros((0, 1, 8, 8), np.uint8), labels=np.zeros(0, np.int64))
    made["recipe.toml"] = folder / "recipe.toml"
    made["recipe.toml"].write_text("weight_bit = 3\n")
    attack = 'title = "t"\n[[attacks]]\nname = "a"\nattack = "pgd"\n'
    for name, line in (("suite.toml", "strength = 3"), ("parent.toml", 'source = "parent"')):
        made[name] = folder / name
        made[name].write_text(attack + line)
    made["many.npz"] = folder / "many.npz"
    pixels = np.zeros((6, 1, 8, 8), np.uint8)
    np.savez(made["many.npz"], images=pixels, labels=np.array([0, 1, 2, 9, 0, 1]))
    made["gone"] = folder / "gone"
    made["out"] = folder / "out.onnx"
    made["folder"] = folder
    made |= {"data": files.data, "model": files.model, "artifact": files.artifact}
    return made


CASES = {
    "not an ONNX file": ("inspect {text.onnx}", "not an ONNX file"),
    "not an ONNX file, compiled": ("compile {text.onnx} --out {out} --data {data}", "not an ONNX file"),
    "truncated file": ("run {cut.onnx} --data {data}", "truncated"),
    "truncated file, attacked": ("attack {cut.onnx} --data {data} --out {folder}/run", "truncated"),
    "unsupported operator": ("compile {sin.onnx} --out {out} --data {data}", "Sin"),
    "float model where an artifact belongs": ("run {sin.onnx} --data {data}", "Conv"),
    "NaN weights": ("compile {nan.onnx} --out {out} --data {data}", "weight [5, 1] is nan"),
    "infinite weights": ("compile {inf.onnx} --out {out} --data {data}", "weight [5, 1] is inf"),
    "|w| > 1, literal mu-law": ("compile {big.onnx} --out {out} --data {data} --mu-law fc=9", "|w| <= 1"),
    "mu-law on an unknown layer": ("compile {model} --out {out} --data {data} --mu-law fc9=255", "fc9"),
    "mu-law without a number": ("compile {model} --out {out} --data {data} --mu-law fc", "fc2=255"),
    "accumulator past 2^31": ("compile {wide.onnx} --out {out} --data {wide.npz} --weight-bits 8", "int32"),
    "wrong image shape to compile": ("compile {model} --out {out} --data {ten.npz}", "10"),
    "wrong image shape to run": ("run {artifact} --data {ten.npz}", "10, 10"),
    "wrong image type": ("run {artifact} --data {float.npz}", "uint8"),
    "empty calibration set": ("compile {model} --out {out} --data {data} --calibration-images 0", "empty"),
    "empty data set": ("compile {model} --out {out} --data {empty.npz}", "empty"),
    "pickled checkpoint": ("export {pickle.pt} --out {out} --data {data}", "pickled"),
    "pickled checkpoint, compiled": ("compile {pickle.pt} --out {out} --data {data}", "pickled"),
    "0 bits": ("compile {model} --out {out} --data {data} --weight-bits 0", "weight_bits"),
    "9 bits": ("compile {model} --out {out} --data {data} --weight-bits 9", "weight_bits"),
    "2.5 bits for a layer": ("compile {model} --out {out} --data {data} --layer-bits fc=2.5", "weight_bits"),
    "bits for an unknown layer": ("compile {model} --out {out} --data {data} --layer-bits fc9=3", "fc9"),
    "unknown levels": ("compile {model} --out {out} --data {data} --levels cubic", "levels"),
    "unknown setting": ("compile {model} --out {out} --data {data} --recipe {recipe.toml}", "weight_bit:"),
    "missing recipe": ("compile {model} --out {out} --data {data} --recipe {gone}", "gone"),
    "missing model": ("run {gone} --data {data}", "gone"),
    "missing checkpoint": ("export {gone} --out {out} --data {data}", "gone"),
    "missing data": ("run {artifact} --data {gone}", "gone"),
    "missing run folder": ("report {gone}", "gone"),
    "unknown model to train": ("train --model none --data {data} --out {out}", "none"),
    "settings out of range": ("train --model mnist-cnn --data {data} --out {out} --epochs 0", "epochs"),
    "unwritable artifact": ("compile {model} --out {notes.txt}/a.onnx --data {data}", "notes.txt"),
    "missing folder for the artifact": ("compile {model} --out {gone}/a.onnx --data {data}", "gone"),
    "artifact named like a folder": ("compile {model} --out {other} --data {data}", "folder"),
    "unwritable passes": ("compile {model} --out {out} --data {data} --keep {notes.txt}/passes", "notes.txt"),
    "unwritable export": ("export mnist-cnn --out {notes.txt}/m.onnx", "notes.txt"),
    "unwritable weights": ("train --model mnist-cnn --data {data} --out {notes.txt}/w.pt", "notes.txt"),
    "unwritable checkpoints": (
        "train --model mnist-cnn --data {data} --out {folder}/w.safetensors --checkpoints {notes.txt}/state",
        "notes.txt",
    ),
    "unwritable predictions": ("run {artifact} --data {data} --out {notes.txt}/p.npz", "notes.txt"),
    "unwritable run folder": ("attack {artifact} --data {data} --out {notes.txt}/run", "notes.txt"),
    "unwritable demo": ("demo --out {notes.txt}/demo", "notes.txt"),
    "demo into somebody's folder": ("demo --out {other}", "not empty"),
    "demo into a file": ("demo --out {notes.txt}", "file"),
    "unknown witness": ("run {artifact} --data {data} --witness me", "me"),
    "unknown attack": ("attack {artifact} --data {data} --attack magic", "magic"),
    "epsilon past the range": ("attack {artifact} --data {data} --epsilon 1.5", "1.5"),
    "epsilon of 256 codes": ("attack {artifact} --data {data} --epsilon 256", "256"),
    "negative epsilon": ("attack {artifact} --data {data} --epsilon -1", "-1"),
    "epsilon of nothing": ("attack {artifact} --data {data} --epsilon 0", "radius of 0 codes"),
    "wrong ladder": ("attack {artifact} --data {data} --ladder 0.1,x", "'x'"),
    "unknown norm": ("attack {artifact} --data {data} --norm 1", "expected inf or 2"),
    "unknown suite": ("attack {artifact} --data {data} --suite papr --out {folder}/run", "the nearest is 'paper'"),
    "suite with an unknown field": ("attack {artifact} --data {data} --suite {suite.toml}", "attacks.0.strength"),
    "unknown judge": ("attack {artifact} --data {data} --on me", "neither emulator nor onnxruntime"),
    "steps of a suite": ("attack {artifact} --data {data} --suite paper --steps 3", "in its file"),
    "missing parent": ("attack {artifact} --data {data} --parent {gone}.pt", "no such file"),
    "integer model as parent": (
        "attack {artifact} --data {data} --parent {artifact} --suite {parent.toml} --out {folder}/run",
        "is an integer model",
    ),
    "attack on a parent that was not given": (
        "attack {artifact} --data {data} --suite {parent.toml} --out {folder}/run", "was not given (--parent)",
    ),
    "substitute of another shape": (
        "attack {artifact} --data {data} --substitute mnist-cnn --out {folder}/run", "does not take images of shape",
    ),
    "labels out of range, attacked": (
        "attack {artifact} --data {many.npz} --out {folder}/run", "found the label 9; the artifact knows the classes 0",
    ),
    "images of another type, attacked": ("attack {artifact} --data {float.npz} --out {folder}/run", "uint8"),
    "images of another shape, attacked": ("attack {artifact} --data {ten.npz} --out {folder}/run", "10, 10"),
    "attacks into somebody's folder": ("attack {artifact} --data {data} --out {other}", "not empty"),
    "missing set": ("replay {gone}", "no such file"),
    "a set that is none": ("replay {data} {artifact}", "not a set of adversarial images"),
    "bad input shape": ("export mnist-cnn --out {out} --input-shape 1,28,x", "1,28,x"),
    "unknown option": ("run {artifact} --fast", "--fast"),
    "unknown command": ("fold", "fold"),
    "missing argument": ("run", "FILE.onnx"),
    "missing option": ("compile {model}", "--out"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_exit_code_2_and_no_file(case: str, call, bad) -> None:
    command, mentions = CASES[case]
    for name, path in bad.items():
        command = command.replace(f"{{{name}}}", str(path))
    before = listing(bad["folder"])
    outcome = call(*command.split())
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert mentions in outcome.err
    assert outcome.out == ""
    assert listing(bad["folder"]) == before


def test_a_command_without_arguments_prints_the_help(call) -> None:
    outcome = call()
    assert outcome.code == 2
    assert "Usage" in outcome.out + outcome.err


def test_a_bug_is_one_line_and_shows_its_traceback_on_request(call, monkeypatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("seven\nlines")

    monkeypatch.setattr(doctor, "examine", broken)
    outcome = call("doctor")
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1
    assert "bug in ohmfold: ZeroDivisionError: seven lines" in outcome.err
    assert "OHMFOLD_DEBUG" in outcome.err
    assert "Traceback" in call("--debug", "doctor").err
    monkeypatch.setenv("OHMFOLD_DEBUG", "1")
    assert "Traceback" in call("doctor").err


def test_ctrl_c_during_training_leaves_no_weights_behind(tmp_path) -> None:
    data = write_images(tmp_path / "data.npz", 64, side=28)
    state = tmp_path / "state"
    arguments = ["train", "--model", "mnist-resnet8", "--data", data, "--epochs", 10_000]
    process = start(*arguments, "--out", tmp_path / "w.safetensors", "--checkpoints", state)
    wait_for(lambda: (state / "training.pt").exists(), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")
    assert {path.name for path in tmp_path.rglob("*")} == {"data.npz", "state", "training.pt"}


def test_ctrl_c_during_the_demo_leaves_no_folder_behind(tmp_path) -> None:
    process = start("demo", "--out", tmp_path / "demo")
    wait_for(lambda: any(tmp_path.glob(".demo.*/model.onnx")), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_ends_the_command_without_a_word(files) -> None:
    process = start("inspect", files.artifact)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 1


def test_without_a_terminal_nothing_is_cut_or_coloured(files) -> None:
    environment = {**os.environ, "COLUMNS": "40", "TERM": "dumb"}
    command = [sys.executable, "-m", "ohmfold", "inspect", files.artifact]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "\x1b" not in done.stdout
    assert "…" not in done.stdout
    assert any(line.startswith(str(files.artifact)) and len(line) > 100 for line in done.stdout.splitlines())
    assert done.stderr == ""
