"""docs/attacks.md says what the code does: its suites, its example, the keys of its schema, its commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import ohmfold
from ohmfold.toolchain.attacks.results import AttackRecord, CampaignResult
from ohmfold.toolchain.attacks.suite import Suite, suite_names
from ohmfold.toolchain.cli import main

DOCS = (Path(ohmfold.__file__).resolve().parent / "docs/attacks.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line)[1:] for line in re.findall(r"^    (ohmfold .*)$", DOCS, re.MULTILINE)]
EXAMPLE = re.search(r"```toml\n(.*?)```", DOCS, re.DOTALL).group(1)


def test_every_suite_has_its_line():
    assert set(re.findall(r"^\| `(\w+)` \| [^|]+\|$", DOCS, re.MULTILINE)) >= set(suite_names())


def test_the_example_of_a_suite_is_one():
    suite = Suite.from_toml(EXAMPLE, "long")
    assert [one.name for one in suite.expanded()] == ["noise", "long"]
    assert suite.file.cascade


def test_every_key_of_the_result_is_named():
    schema = DOCS[DOCS.index("`result.json` (schema 1") :]
    named = set(re.findall(r"`(\w+)`", schema))
    assert set(CampaignResult.model_fields) - {"schema_version"} <= named
    assert set(AttackRecord.model_fields) <= named


@pytest.mark.slow
def test_every_command_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "long.toml").write_text(EXAMPLE)
    assert len(COMMANDS) > 9
    for command in sorted(COMMANDS, key=lambda words: words[0] != "compile"):
        # Fewer images than the page has: what is tested is the commands, not their figures.
        few = [*command, "--images", "3", "--batch-size", "3"] if command[0] == "attack" else command
        assert main(few) == 0, (command, capsys.readouterr())
