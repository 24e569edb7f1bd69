"""README says what the code does: its commands exist, its Python runs, its figures are the tested ones."""

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ohmfold
from ohmfold.models.checkpoints import load_model
from ohmfold.models.datasets import resolve_dataset
from ohmfold.toolchain.cli import main
from ohmfold.toolchain.targets.c99.compilers import COMPILERS

ROOT = Path(ohmfold.__file__).resolve().parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMES = {
    "float": "float",
    "8 bits": "8 bits",
    "4 bits": "4 bits",
    "3 bits (the default recipe)": "3 bits",
    "3 bits, mu-law on fc2": "3 bits, mu-law on fc2",
    "3 bits, base-2 logarithmic levels": "3 bits, base-2 logarithmic",
    "3 bits, every scale a power of two": "3 bits, powers of two",
    "2 bits, step by least squared error": "2 bits, least squared error",
    "2 bits, step by maximum": "2 bits",
}


def read_accuracies():
    """Read the figures that tests/toolchain/test_accuracy.py holds the network to."""
    tree = ast.parse((ROOT / "tests/toolchain/test_accuracy.py").read_text(encoding="utf-8"))
    table = next(
        node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "EXPECTED"
    )
    return {key.value: value.elts[1].value for key, value in zip(table.keys, table.values, strict=True)}


def test_the_accuracies_are_the_tested_ones():
    rows = dict(re.findall(r"^\| ([^|`]+?) \| (\d+\.\d\d) % \|$", README, re.MULTILINE))
    assert set(rows) == set(NAMES)
    tested = read_accuracies()
    assert {NAMES[name]: float(figure) for name, figure in rows.items()} == tested


@pytest.mark.parametrize("command", re.findall(r"^\| `ohmfold (\w+)`", README, re.MULTILINE))
def test_every_command_of_the_table_exists(command):
    done = subprocess.run(
        [sys.executable, "-m", "ohmfold", command, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_python_example_runs_as_written(tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    images = resolve_dataset("mnist-sample").subset(96, 0).images
    import torch

    monkeypatch.chdir(tmp_path)
    names = {"module": load_model("mnist-cnn"), "calibration_images": images[:64], "images_u8": images[64:]}
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102 - the example is ours
    assert (tmp_path / "digits.onnx").exists()
    pixels = torch.from_numpy(names["images_u8"] / np.float32(255))
    assert np.array_equal(names["twin"](pixels).numpy(), names["logits"])


@pytest.mark.slow
def test_the_worst_chips_of_the_crossbar_example_are_those_that_its_commands_find(
    tmp_path, monkeypatch, capsys
):
    text = README[README.index("## Crossbars") :]
    commands = re.findall(r"^    ohmfold ((?:.*\\\n)*.*)$", text, re.MULTILINE)[:2]
    rows = re.findall(r"^     cell\.programming\.sigma = (\S+) .* (\S+) % +(\d+)$", text, re.MULTILINE)
    exact = re.search(r"^     exact integers +(\S+) %$", text, re.MULTILINE).group(1)
    assert len(rows) == 3
    (seed,) = {seed for _, _, seed in rows}  # else the command is to be run for each of them
    monkeypatch.chdir(tmp_path)
    compiling, studying = (shlex.split(command.replace("\\\n", " ")) for command in commands)
    assert main(compiling) == 0
    capsys.readouterr()
    assert main([*studying, "--count", "1", "--seed", seed, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    images = found["data"]["images"]
    assert f"{100 * found['exact_correct'] / images:.1f}" == exact
    assert [
        (f"{point['value']:g}", f"{100 * point['worst']['correct'] / images:.1f}", seed)
        for point in found["points"]
    ] == rows
    assert {path.name for path in Path("chips").iterdir()} >= {"chips.json", "chips.csv", "sweep.svg"}


def test_both_install_lines_are_those_that_ci_runs():
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    for line in ("pip install -c constraints.txt .", "pip install -c constraints.txt -e '.[test]'"):
        assert line in README
    assert "install --quiet -c constraints.txt ." in ci
    assert "install --quiet -c constraints.txt -e '.[test]'" in ci


def test_ci_installs_the_debian_packages_that_readme_names_and_all_that_the_compilers_need():
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    installed = set(re.search(r"^packages=\((.*?)\)", ci, re.MULTILINE | re.DOTALL).group(1).split())
    named = re.search(r"`apt-get install --no-install-recommends (.*?)`", README, re.DOTALL).group(1)
    assert set(named.split()) == installed
    assert installed >= {package for compiler in COMPILERS for package in compiler.packages}
