"""The plan of a probe: what its file may say, and what it may not."""

import pytest

from ohmfold.errors import RecipeError
from ohmfold.toolchain.attacks.masking import Plan, default_plan
from ohmfold.toolchain.attacks.masking.evidence import ROLES

GOOD = """
images = 50
[[runs]]
role = "iterative"
attack = "pgd"
settings = { steps = 5 }
"""


def test_the_shipped_plan_has_a_run_for_every_role():
    plan = default_plan()
    assert {run.role for run in plan.runs} == set(ROLES)
    assert all(run.calls >= 1 for run in plan.runs)
    assert plan.runs[0].role == "iterative"


def test_a_plan_is_read():
    plan = Plan.from_toml(GOOD)
    assert (plan.images, plan.repeats, plan.runs[0].settings) == (50, 2, {"steps": 5})
    assert (plan.runs[0].times, plan.runs[0].radius_factor, plan.runs[0].calls) == (1, 1.0, 5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("images = ", "not TOML"),
        (GOOD.replace("images = 50", "images = 0"), "images"),
        (GOOD.replace('role = "iterative"', 'role = "iterated"'), "role"),
        (GOOD.replace('attack = "pgd"', 'attack = "pgt"'), "unknown attack 'pgt'"),
        (GOOD.replace("steps = 5", "stepz = 5"), "unknown setting 'stepz'"),
        (GOOD.replace("steps = 5", "steps = 0"), "steps is 0"),
        (GOOD + "times = 0\n", "times"),
        (GOOD + "radius_factor = -1.0\n", "radius_factor"),
        (GOOD + 'radius_factor = "all"\n', "radius_factor"),
        (GOOD + "strength = 1\n", "strength"),
        (GOOD + 'only_without = "squares"\n', "'squares'"),
        (GOOD + GOOD.partition("50")[2], "more than one run has the role 'iterative'"),
        (GOOD.replace('"iterative"', '"noise"'), "works along a gradient"),
        (GOOD.replace('"pgd"', '"uniform-noise"').replace("steps = 5", ""), "works without a gradient"),
    ],
)
def test_a_fault_of_a_plan_is_named(changed, message):
    with pytest.raises(RecipeError, match=message):
        Plan.from_toml(changed)
