"""docs/analysis.md says what the code does: its commands work, and its table is what they find."""

import csv
import json
import re
import shlex
from pathlib import Path

import pytest

import ohmfold
from ohmfold.toolchain.cli import main

DOCS = (Path(ohmfold.__file__).resolve().parent / "docs/analysis.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^    (ohmfold .*)$", DOCS, re.MULTILINE)]
ROWS = re.findall(r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", DOCS, re.MULTILINE)
FIELDS = ("spectral", "operator_spectral", "infinity", "operator_infinity")


@pytest.mark.slow
def test_the_commands_find_the_figures_of_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert [words[0] for words in COMMANDS] == ["compile", "attack", "analyze"]
    for words in COMMANDS:
        # Fewer images than the page has: the norms do not depend on them.
        few = [*words, "--images", "4"] if words[0] != "compile" else words
        assert main(few) == 0, (words, capsys.readouterr())
    found = json.loads(Path("analysis/analysis.json").read_text())
    norms = {row["name"]: row["lipschitz"] for row in found["layers"]} | {"product": found["product"]}
    assert {name: tuple(f"{norms[name][field]:.4g}" for field in FIELDS) for name in norms} == {
        name: tuple(figures) for name, *figures in ROWS
    }
    named = set(re.findall(r"^\| `([^`]+)` \|", DOCS, re.MULTILINE))
    written = {str(path.relative_to("analysis")) for path in Path("analysis").rglob("*.*")}
    assert {re.sub(r"\d+-\w+\.svg", "NN-LAYER.svg", name) for name in written} == named
    with Path("analysis/layers.csv").open() as file:
        assert [row["layer"] for row in csv.DictReader(file)] == [name for name, *_ in ROWS[:-1]]


def test_every_length_is_named():
    from dataclasses import fields

    from ohmfold.toolchain.analysis.error_terms import ErrorTerms

    assert {field.name for field in fields(ErrorTerms)} <= set(re.findall(r"`(\w+)`", DOCS))
