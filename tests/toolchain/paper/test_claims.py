"""Every claim reaches every verdict that it can reach, by its rule, on made-up records."""

import json

import pytest
from paper_records import cell, flat, missing_row, norms, results, row, table, terms, widths

from ohmfold.errors import OutputError
from ohmfold.toolchain.paper.claim import FAILS, HOLDS, MASKED, NOT_MEASURED, read_rules
from ohmfold.toolchain.paper.claims import CLAIMS, judge_claim, judge_claims, write_claims
from ohmfold.toolchain.paper.extras import Extras
from ohmfold.toolchain.paper.printed import CLEAN, paper_tables
from ohmfold.toolchain.paper.results import read_results
from ohmfold.toolchain.paper.write import write_table

RULES = {(rule.claim, rule.data): rule for rule in read_rules()}


def judged(claim, found):
    return judge_claim(RULES[claim, found.data], found)


def white(*rows, **more):
    return table(1, rows, **more)


def attacked(clean, under):
    return {**flat(1, under), CLEAN: clean}


def test_every_claim_has_a_function_and_a_rule():
    assert set(CLAIMS) == {rule.claim for rule in RULES.values()}
    for rule in RULES.values():
        assert rule.text
        assert "{" not in rule.text
        assert rule.paper
        assert rule.images == 200


def clean_results(family, loss, **more):
    rows = (row(family, attacked(98, 50), **more), row(f"{family} (Q)", attacked(98 - loss, 50), **more))
    images = more.get("images", 1000)
    return results(white=white(*rows, images=images))


@pytest.mark.parametrize(
    ("claim", "family", "loss", "verdict"),
    [
        ("fl-q-keeps-clean", "F.L.", 0.9, HOLDS),
        ("fl-q-keeps-clean", "F.L.", 1.1, FAILS),
        ("adv-q-collapses", "Adv.", 21, HOLDS),
        ("adv-q-collapses", "Adv.", 19, FAILS),
    ],
)
def test_clean_accuracy_after_quantisation(claim, family, loss, verdict):
    found = judged(claim, clean_results(family, loss))
    assert found.verdict == verdict
    (lost,) = (figure for figure in found.figures if figure.what == "loss")
    assert lost.ours == pytest.approx(loss)
    printed = paper_tables()[1]
    assert lost.paper == pytest.approx(printed.value(family, CLEAN) - printed.value(f"{family} (Q)", CLEAN))
    assert "1000 images of made-up images" in found.images


@pytest.mark.parametrize(("claim", "family"), [("fl-q-keeps-clean", "F.L."), ("adv-q-collapses", "Adv.")])
def test_clean_accuracy_that_is_not_there(claim, family):
    nothing = judged(claim, results())
    assert (nothing.verdict, nothing.figures) == (NOT_MEASURED, ())
    assert "ohmfold paper table1 --out results/" in nothing.why
    few = judged(claim, clean_results(family, 0, images=199))
    assert few.verdict == NOT_MEASURED
    assert "on 199 images only, and on fewer than 200 nothing is decided" in few.why
    untrained = results(white=white(missing_row(family), missing_row(f"{family} (Q)")))
    assert "train it: ohmfold train" in judged(claim, untrained).why


def test_figure_1_serves_where_the_table_is_missing_or_has_fewer_images():
    from_figure = results(widths=widths({"Adv.": (40, 98)}))
    assert judged("adv-q-collapses", from_figure).verdict == HOLDS
    both = results(
        white=clean_results("Adv.", 0, images=300).white, widths=widths({"Adv.": (40, 98)}, images=900)
    )
    assert judged("adv-q-collapses", both).verdict == HOLDS
    both = results(
        white=clean_results("Adv.", 0, images=900).white, widths=widths({"Adv.": (40, 98)}, images=300)
    )
    assert judged("adv-q-collapses", both).verdict == FAILS


def pair(claim, better, worse, *, adaptive=(90, 0), verdict="trustworthy", **more):
    """Results of the two models that a claim of robustness compares, with their accuracies under attack."""
    names = {"fl-beats-orig": ("F.L.", "Orig."), "mu-helps-white-box": ("F.L.+mu (Q)", "F.L. (Q)")}[claim]
    rows = (
        row(names[0], attacked(98, better), adaptive=adaptive[0], verdict=verdict),
        row(names[1], attacked(99, worse), adaptive=adaptive[1]),
    )
    return results(white=white(*rows, **more))


ROBUST = ("fl-beats-orig", "mu-helps-white-box")


@pytest.mark.parametrize("claim", ROBUST)
def test_a_gain_under_attack_holds_or_does_not(claim):
    assert judged(claim, pair(claim, 46, 40)).verdict == HOLDS
    assert judged(claim, pair(claim, 44, 40)).verdict == FAILS
    # What is below the margin needs no verdict to be so.
    assert judged(claim, pair(claim, 44, 40, adaptive=(None, None), verdict="x")).verdict == FAILS


@pytest.mark.parametrize("claim", ROBUST)
def test_a_gain_of_a_masked_model_holds_only_because_gradients_vanish(claim):
    found = judged(claim, pair(claim, 60, 40, verdict="masked"))
    assert found.verdict == MASKED
    assert "masked (loss scale)" in found.why


@pytest.mark.parametrize("claim", ROBUST)
def test_a_gain_that_adaptive_attacks_take_away_holds_only_because_gradients_vanish(claim):
    found = judged(claim, pair(claim, 60, 40, adaptive=(4, 0)))
    assert found.verdict == MASKED
    assert "the gain disappears" in found.why
    assert judged(claim, pair(claim, 60, 40, adaptive=(5, 0))).verdict == HOLDS


@pytest.mark.parametrize("claim", ROBUST)
def test_adaptive_attacks_of_a_larger_ball_than_the_gain_was_seen_in_take_nothing_away(claim):
    found = judged(claim, pair(claim, 60, 40, adaptive=(0, 0), ball=()))
    assert found.verdict == HOLDS
    assert "no attack of the table is of the size within 76 codes" in found.why


def test_a_gain_outside_the_ball_alone_is_not_one_that_disappears():
    shares = attacked(98, 70) | {"FGSM (s)": 2.0, "PGD": 0.0}
    rows = (row("F.L.", shares), row("Orig.", attacked(99, 0)))
    assert judged("fl-beats-orig", results(white=white(*rows))).verdict == HOLDS


@pytest.mark.parametrize("claim", ROBUST)
def test_a_gain_without_verdict_or_models_is_not_measured(claim):
    quick = judged(claim, pair(claim, 60, 40, adaptive=(None, None), verdict="not computed (quick)"))
    assert quick.verdict == NOT_MEASURED
    assert "20.00 points better" in quick.why
    assert "ohmfold paper table1 --out results/, without --quick" in quick.why
    assert judged(claim, results()).why == "table1.json is not there: ohmfold paper table1 --out results/"
    assert judged(claim, pair(claim, 60, 40, images=100)).verdict == NOT_MEASURED
    absent = results(white=white(missing_row("F.L."), missing_row("F.L.+mu (Q)"), row("Orig.", flat(1, 3))))
    assert judged(claim, absent).verdict == NOT_MEASURED
    assert "train it: ohmfold train --recipe feedback" in judged(claim, absent).why


def test_the_mu_law_map_is_judged_under_attacks_along_gradients_alone():
    shares = attacked(98, 50) | {"CW-L2": 0.0}
    rows = (row("F.L.+mu (Q)", shares, adaptive=60), row("F.L. (Q)", attacked(99, 44)))
    assert judged("mu-helps-white-box", results(white=white(*rows))).verdict == HOLDS


def black_box(mapped, plain, images=1000):
    rows = [row("F.L.+mu (Q)", flat(2, mapped)), row("F.L. (Q)", flat(2, plain))]
    return results(black=table(2, rows, images=images))


def test_the_mu_law_map_under_black_box_attacks():
    assert judged("mu-not-black-box", black_box(91, 90)).verdict == HOLDS
    assert judged("mu-not-black-box", black_box(60, 90)).verdict == HOLDS
    assert judged("mu-not-black-box", black_box(93, 90)).verdict == FAILS
    assert judged("mu-not-black-box", black_box(90, 90, images=10)).verdict == NOT_MEASURED
    assert "table2.json is not there" in judged("mu-not-black-box", results()).why


def averages(best, over, name, *, adaptive=80, verdict="trustworthy", images=1000):
    rows = {
        n: [row("F.L.+mu (Q)", flat(n, best), adaptive=adaptive, verdict=verdict), row(name, flat(n, over))]
        for n in (1, 2)
    }
    return results(white=table(1, rows[1], images=images), black=table(2, rows[2], images=images))


@pytest.mark.parametrize(
    ("claim", "name", "half"),
    [("average-over-orig", "Orig.", 10.27), ("average-over-second", "F.L. (Q)", 3.775)],
)
def test_average_gains(claim, name, half):
    assert judged(claim, averages(50 + half + 0.1, 50, name)).verdict == HOLDS
    assert judged(claim, averages(50 + half - 0.1, 50, name)).verdict == FAILS
    assert judged(claim, averages(90, 50, name, verdict="masked")).verdict == MASKED
    assert judged(claim, averages(90, 50, name, adaptive=half - 0.1)).verdict == MASKED
    assert judged(claim, averages(90, 50, name, images=10)).verdict == NOT_MEASURED
    assert judged(claim, results(white=averages(90, 50, name).white)).verdict == NOT_MEASURED


def test_of_the_printed_averages_only_one_follows_from_the_printed_tables():
    for data in ("mnist", "cifar10"):
        assert judged("printed-averages", results(data)).verdict == FAILS
    mnist = judged("printed-averages", results("mnist"))
    assert "20.54 over Orig. does not follow" in mnist.why
    assert "7.55 over F.L. (Q) does not follow" in mnist.why
    cifar10 = judged("printed-averages", results("cifar10"))
    assert "52.69 over Orig. does not follow" in cifar10.why
    assert "27.84 over F.L. (Q) follows (all columns of both tables)" in cifar10.why


def test_averages_that_follow_hold():
    rule = RULES["printed-averages", "cifar10"]
    from dataclasses import replace

    right = replace(rule, numbers={"averages": {"F.L. (Q)": 27.84}})
    assert judge_claim(right, results("cifar10")).verdict == HOLDS


ALL = {"Orig.": (1, 1, 3, 4), "Adv.": (2, 2, 4, 5), "F.L.": (1, 1, 2, 3)}


def test_the_largest_constants():
    def of(data="mnist", **changed):
        models = {name: changed.get(name[:2], values) for name, values in ALL.items()}
        return judged(
            "adv-largest-norm", results(data, norms=norms(data, {k: v for k, v in models.items() if v}))
        )

    assert of().verdict == HOLDS
    found = of(Or=(1, 2.5, 3, 4))
    assert found.verdict == FAILS
    assert "in layer2 Adv. has 2.000, Orig. 2.500" in found.why
    assert of("cifar10", Or=(9, 9, 9, 4.9)).verdict == HOLDS  # the last layer alone is claimed
    assert of("cifar10", Or=(1, 1, 3, 5.1)).verdict == FAILS
    absent = {"F.": None}
    assert of(**absent).verdict == NOT_MEASURED
    assert "no checkpoint of F.L." in of(**absent).why
    assert of(**absent, Or=(1, 1, 9, 4)).verdict == FAILS  # one counterexample is enough
    assert of(Ad=None).verdict == NOT_MEASURED
    assert "figure3.json is not there" in judged("adv-largest-norm", results()).why


def test_which_layers_amplify_most():
    def both(**changed):
        models = {name: changed.get(name[:2], values) for name, values in ALL.items()}
        found = results(norms=norms("mnist", {k: v for k, v in models.items() if v}))
        return tuple(
            judged(claim, found).verdict for claim in ("last-layers-amplify", "last-layer-amplifies")
        )

    assert both() == (HOLDS, HOLDS)
    assert both(Or=(1, 1, 5, 4)) == (HOLDS, FAILS)
    assert both(Or=(5, 1, 3, 4)) == (FAILS, FAILS)
    assert both(Or=None) == (NOT_MEASURED, NOT_MEASURED)
    assert both(Or=None, Ad=(9, 1, 1, 1)) == (FAILS, FAILS)
    for claim in ("last-layers-amplify", "last-layer-amplifies"):
        assert judged(claim, results()).verdict == NOT_MEASURED


def test_how_far_the_map_moves_the_last_constant():
    def of(orig, fl, adv=50.0):
        mapped = {"Orig.+mu": (1, orig), "F.L.+mu": (1, fl), "Adv.+mu": (1, adv)}
        models = {"Orig.": (1, 10), "F.L.": (1, 10), "Adv.": (1, 10), **mapped}
        return norms("mnist", {name: values for name, values in models.items() if None not in values})

    def verdict(*values):
        return judged("mu-hardly-moves-norms", results(norms=of(*values))).verdict

    assert verdict(12.4, 7.6) == HOLDS
    assert verdict(12.6, 10) == FAILS
    assert verdict(10, 7.4) == FAILS
    assert verdict(12, None) == NOT_MEASURED
    assert verdict(13, None) == FAILS
    assert verdict(12, 12, None) == HOLDS  # Adv. is not judged
    assert judged("mu-hardly-moves-norms", results()).verdict == NOT_MEASURED


def test_the_third_term():
    small, large = (1.0, 2.0, 0.09), (1.0, 2.0, 0.11)

    def of(**families):
        missing = {name: f"no checkpoint of {name}" for name in ("Orig.", "Adv.", "F.L.")}
        return judged("third-term", results(extras=Extras(terms=terms(**families), missing=missing)))

    assert of(orig=[small], adv=[small], fl=[small, small]).verdict == HOLDS
    found = of(orig=[small], adv=[small], fl=[small, large])
    assert found.verdict == FAILS
    assert "in F.L. it reaches 0.11 of the smaller one (layer2)" in found.why
    (ratio,) = (one.ours for one in found.figures if one.what == "F.L., layer2: cross / quantisation")
    assert ratio == pytest.approx(0.055)
    assert of(orig=[(2.0, 1.0, 0.11)]).verdict == FAILS
    assert of(orig=[small], adv=[small]).why == "no checkpoint of F.L."


def test_mapped_blocks():
    def of(claim, images=300, **blocks):
        names = {"plain": "Orig.", "first": "first block mapped", "last": "last block mapped"}
        cells = {names[name]: cell(share, images) for name, share in blocks.items()}
        extras = Extras(blocks=cells, missing={"first block mapped": "|w| > 1", "Orig.": "no checkpoint"})
        return judged(claim, results("cifar10", extras=extras))

    assert of("early-block", plain=92, first=41).verdict == HOLDS
    assert of("early-block", plain=92, first=43).verdict == FAILS
    assert of("last-block", plain=92, last=91.5).verdict == HOLDS
    assert of("last-block", plain=92, last=90).verdict == FAILS
    for claim in ("early-block", "last-block"):
        assert of(claim).why == "no checkpoint"
        assert of(claim, images=100, plain=92, first=10, last=10).verdict == NOT_MEASURED
    assert of("early-block", plain=92).why == "|w| > 1"


def test_adversarial_training_with_quantisation():
    def of(images=300, **models):
        names = {"both": "Adv. with QAT (Q)", "alone": "Adv. (Q)", "real": "Adv."}
        trainings = {
            names[name]: {"Clean": cell(values[0], images), "PGD": cell(values[1], images)}
            for name, values in models.items()
        }
        missing = {"Adv. with QAT (Q)": "train it: ohmfold train --recipe adversarial-qat"}
        return judged("adv-qat-worse", results(extras=Extras(trainings=trainings, missing=missing)))

    assert of(both=(90, 70), alone=(95, 80)).verdict == HOLDS
    better = of(both=(97, 85), alone=(40, 20), real=(98, 92))
    assert better.verdict == FAILS
    assert "with both 91.00 %, alone 30.00 % (alone and in float 95.00 %)" in better.why
    assert of(alone=(40, 20)).verdict == NOT_MEASURED
    assert "--recipe adversarial-qat" in of(alone=(40, 20)).why
    assert of(images=10, both=(90, 70), alone=(95, 80)).verdict == NOT_MEASURED


def test_what_the_paper_says_in_numbers_is_what_its_tables_say():
    for data, white_number, black_number in (("mnist", 1, 2), ("cifar10", 3, 4)):
        rows = paper_tables()[white_number].rows
        means = {name: sum(values[1:]) / 6 for name, values in rows.items()}
        beats = means["F.L."] - means["Orig."]
        assert float(RULES["fl-beats-orig", data].paper.split()[0]) == pytest.approx(beats, abs=0.5)
        gradients = {name: sum(values[2:]) / 5 for name, values in rows.items()}
        helps = gradients["F.L.+mu (Q)"] - gradients["F.L. (Q)"]
        assert float(RULES["mu-helps-white-box", data].paper.split()[0]) == pytest.approx(helps, abs=0.05)
        rows = paper_tables()[black_number].rows
        harm = (sum(rows["F.L. (Q)"]) - sum(rows["F.L.+mu (Q)"])) / 6
        assert float(RULES["mu-not-black-box", data].paper.split()[0]) == pytest.approx(harm, abs=0.05)


def test_claims_are_a_page_and_a_document(tmp_path):
    found = {"mnist": clean_results("F.L.", 0.5), "cifar10": results("cifar10")}
    outcomes = judge_claims(found)
    assert len(outcomes) == len(RULES)
    files = write_claims(outcomes, tmp_path)
    assert [file.name for file in files] == ["claims.json", "CLAIMS.md"]
    document = json.loads(files[0].read_text("utf-8"))
    verdicts = {(one["claim"], one["data"]): one["verdict"] for one in document["outcomes"]}
    assert verdicts["fl-q-keeps-clean", "mnist"] == HOLDS
    assert verdicts["fl-q-keeps-clean", "cifar10"] == NOT_MEASURED
    text = files[1].read_text("utf-8")
    assert "| Quantised F.L. keeps its clean accuracy | holds | not measured |" in text
    assert "| Mapping an early block ruins accuracy | no such claim | not measured |" in text
    assert "Verdict: **holds**: it loses 0.50 points." in text
    assert "| F.L. (Q), clean | 97.50 % | 98.99 % |" in text
    assert "Rule: F.L. (Q) loses at most 1 points of F.L.'s clean accuracy." in text


def test_a_share_of_nothing_is_no_number_in_the_document(tmp_path):
    extras = Extras(terms=terms(orig=[(1.0, 0.0, 0.5)]))
    outcome = judged("third-term", results(extras=extras))
    assert outcome.verdict == FAILS
    document = json.loads(write_claims([outcome], tmp_path)[0].read_text("utf-8"))
    assert document["outcomes"][0]["figures"][0]["ours"] is None


def test_a_table_is_read_back_as_it_was_written(tmp_path):
    written = clean_results("F.L.", 0.5).white
    write_table(written, tmp_path)
    found = read_results(tmp_path, "mnist", Extras())
    assert found.white == written
    assert (found.black, found.widths, found.norms) == (None, None, None)
    assert read_results(tmp_path, "cifar10", Extras()).white is None


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "table1.json").write_text('{"number": 1}')
    with pytest.raises(
        OutputError, match=r"table1.json cannot be read .*ohmfold paper table1 --out results/"
    ):
        read_results(tmp_path, "mnist", Extras())
