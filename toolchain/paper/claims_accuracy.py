"""Claims that tables of accuracies decide; each is a function of a rule and the results of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .claim import FAILS, HOLDS, MASKED, Figure, Finding, NotMeasured, enough
from .printed import CLEAN, paper_tables
from .results import command_of, images_of, mean_of, row_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .claim import Rule
    from .printed import PaperTable
    from .records import RowRecord, TableRecord
    from .results import Results

__all__ = ["ACCURACY_CLAIMS"]

_GRADIENT = ("FGSM (w)", "FGSM (s)", "PGD", "BIM", "MIM")
_POINTS = "points"
_PERCENT = "%"
_MASKED = "masked"
_VERDICTS = ("trustworthy", "inconclusive", _MASKED)
_BEST = "F.L.+mu (Q)"
_DIGIT = 0.005
"""Half of the last digit that the paper prints."""


def fl_q_keeps_clean(rule: Rule, results: Results) -> Finding:
    """F.L. against F.L. (Q), both without an attack; the deployed artifact beside them."""
    drop, figures, images = _clean_drop(rule, results, "F.L.")
    verdict = HOLDS if drop <= rule.number("drop") else FAILS
    return Finding(verdict, f"it loses {drop:.2f} points", figures, images)


def adv_q_collapses(rule: Rule, results: Results) -> Finding:
    """Adv. against Adv. (Q), both without an attack; the deployed artifact beside them."""
    drop, figures, images = _clean_drop(rule, results, "Adv.")
    verdict = HOLDS if drop >= rule.number("drop") else FAILS
    return Finding(verdict, f"it loses {drop:.2f} points", figures, images)


def fl_beats_orig(rule: Rule, results: Results) -> Finding:
    """F.L. against Orig., averaged over the white-box attacks; the quantised ones beside them."""
    table = results.table("white box")
    columns = [column for column in table.columns if column != CLEAN]
    return _robust(rule, results, ("F.L.", "Orig."), columns, beside=(("F.L. (Q)", "Orig. (Q)"),))


def mu_helps_white_box(rule: Rule, results: Results) -> Finding:
    """F.L.+mu (Q) against F.L. (Q), averaged over the attacks along gradients; the other families beside them."""
    columns = [column for column in results.table("white box").columns if column in _GRADIENT]
    beside = (("F.L.+mu", "F.L."), ("Orig.+mu (Q)", "Orig. (Q)"), ("Adv.+mu (Q)", "Adv. (Q)"))
    return _robust(rule, results, (_BEST, "F.L. (Q)"), columns, beside=beside)


def mu_not_black_box(rule: Rule, results: Results) -> Finding:
    """F.L.+mu (Q) against F.L. (Q), averaged over the black-box attacks and noise."""
    table = results.table("black box")
    better, worse = row_of(table, _BEST), row_of(table, "F.L. (Q)")
    enough(rule, table.images, command_of(f"table{table.number}"))
    gain = mean_of(better, table.columns) - mean_of(worse, table.columns)
    printed = results.printed("black box")
    figures = (
        *(_mean_figure(row, table.columns, printed, "mean over all columns") for row in (worse, better)),
        Figure("difference", gain, _printed_gain(printed, (_BEST, "F.L. (Q)"), table.columns), _POINTS),
    )
    verdict = HOLDS if gain < rule.number("margin") else FAILS
    return Finding(verdict, f"the map changes the mean by {gain:+.2f} points", figures, images_of(table))


def average_gain(rule: Rule, results: Results) -> Finding:
    """F.L.+mu (Q) against another model, averaged over all columns of both tables, the clean one included."""
    over = str(rule.numbers["over"])
    white, black = results.table("white box"), results.table("black box")
    for table in (white, black):
        enough(rule, table.images, command_of(f"table{table.number}"))
    means = {}
    for name in (_BEST, over):
        shares = [row_of(t, name).cells[column].percent for t in (white, black) for column in t.columns]
        means[name] = sum(shares) / len(shares)
    gain, printed = means[_BEST] - means[over], rule.number("printed")
    theirs = _printed_means(results)["all columns of both tables"]
    figures = (
        *(Figure(f"{name}, mean of all columns", means[name], theirs[name], _PERCENT) for name in means),
        Figure("difference (the paper's: as its text prints it)", gain, printed, _POINTS),
    )
    wanted = printed / 2
    if gain < wanted:
        return Finding(
            FAILS, f"{gain:.2f} points better, which is below {wanted:.2f}", figures, images_of(white)
        )
    attacks = [column for column in white.columns if column != CLEAN]
    return _unmasked(wanted, gain, white, (_BEST, over), attacks, figures)


def printed_averages(rule: Rule, results: Results) -> Finding:
    """The averages of the text, recomputed from the printed tables in every way that comes to mind."""
    means = _printed_means(results)
    figures, follows, not_ = [], [], []
    for over, printed in rule.numbers["averages"].items():
        ways = {way: by[_BEST] - by[over] for way, by in means.items()}
        figures += [
            Figure(f"{_BEST} less {over}: {way}", gain, printed, _POINTS) for way, gain in ways.items()
        ]
        found = [way for way, gain in ways.items() if abs(gain - printed) < _DIGIT]
        if found:
            follows.append(f"{printed:.2f} over {over} follows ({', '.join(found)})")
        else:
            nearest = min(ways.items(), key=lambda item: abs(item[1] - printed))
            not_.append(
                f"{printed:.2f} over {over} does not follow (nearest: {nearest[1]:.2f}, {nearest[0]})"
            )
    return Finding(FAILS if not_ else HOLDS, "; ".join([*not_, *follows]), tuple(figures))


ACCURACY_CLAIMS: dict[str, Callable[[Rule, Results], Finding]] = {
    "fl-q-keeps-clean": fl_q_keeps_clean,
    "adv-q-collapses": adv_q_collapses,
    "fl-beats-orig": fl_beats_orig,
    "mu-helps-white-box": mu_helps_white_box,
    "mu-not-black-box": mu_not_black_box,
    "average-over-orig": average_gain,
    "average-over-second": average_gain,
    "printed-averages": printed_averages,
}
"""By the name of the claim."""


def _clean_drop(rule: Rule, results: Results, family: str) -> tuple[float, tuple[Figure, ...], str]:
    """How many points of clean accuracy a family loses to 3-bit weights, the figures, and on which images."""
    names = (family, f"{family} (Q)")
    cells, command, images = results.clean(names)
    enough(rule, min(cell.images for cell in cells.values()), command)
    printed = results.printed("white box")
    theirs = [printed.value(name, CLEAN) for name in names]
    drop = cells[names[0]].percent - cells[names[1]].percent
    paper = None if None in theirs else (theirs[0] or 0.0) - (theirs[1] or 0.0)
    figures = [
        Figure(f"{n}, clean", cells[n].percent, t, _PERCENT) for n, t in zip(names, theirs, strict=True)
    ]
    figures.append(Figure("loss", drop, paper, _POINTS))
    deployed = f"{family} (Q) deployed"
    rows = [] if results.white is None else [row for row in results.white.rows if row.model == deployed]
    figures += [Figure(f"{deployed}, clean", r.cells[CLEAN].percent, None, _PERCENT) for r in rows if r.cells]
    return drop, tuple(figures), images


def _robust(
    rule: Rule,
    results: Results,
    pair: tuple[str, str],
    columns: Sequence[str],
    *,
    beside: Sequence[tuple[str, str]],
) -> Finding:
    """Judge whether the first of two models is better under white-box attacks by the rule's margin."""
    table, printed = results.table("white box"), results.printed("white box")
    better, worse = (row_of(table, name) for name in pair)
    enough(rule, table.images, command_of(f"table{table.number}"))
    gain = mean_of(better, columns) - mean_of(worse, columns)
    figures = [_mean_figure(row, columns, printed, "mean over attacks") for row in (worse, better)]
    figures.append(Figure("difference", gain, _printed_gain(printed, pair, columns), _POINTS))
    for names in beside:
        rows = [row for name in names for row in table.rows if row.model == name and row.cells]
        if len(rows) == len(names):
            difference = mean_of(rows[0], columns) - mean_of(rows[1], columns)
            theirs = _printed_gain(printed, names, columns)
            figures.append(Figure(f"{names[0]} less {names[1]}", difference, theirs, _POINTS))
    margin = rule.number("margin")
    if gain < margin:
        return Finding(
            FAILS, f"{gain:.2f} points better, which is below {margin:g}", tuple(figures), images_of(table)
        )
    return _unmasked(margin, gain, table, pair, columns, tuple(figures))


def _unmasked(
    margin: float,
    gain: float,
    table: TableRecord,
    pair: tuple[str, str],
    columns: Sequence[str],
    figures: tuple[Figure, ...],
) -> Finding:
    """Ask of a gain that is there whether it is robustness.

    It is not where the masking verdict of the better model is `masked`; nor where attacks of the table within the
    verdict's ball leave the better model ahead by the margin, and the adaptive ones within the same ball do not.
    """
    better, worse = (row_of(table, name) for name in pair)
    if better.verdict not in _VERDICTS or better.adaptive is None or worse.adaptive is None:
        raise NotMeasured(
            f"{pair[0]} is {gain:.2f} points better, but whether that is more than vanished gradients is not known, "
            f"since adaptive attacks and the masking verdict were left out: {command_of(f'table{table.number}')}, "
            "without --quick"
        )
    adaptive = better.adaptive.percent - worse.adaptive.percent
    figures += (
        Figure(f"{worse.model}, adaptive", worse.adaptive.percent, None, _PERCENT),
        Figure(f"{better.model}, adaptive", better.adaptive.percent, None, _PERCENT),
        Figure("difference, adaptive", adaptive, None, _POINTS),
    )
    start = f"{gain:.2f} points better"
    if better.verdict == _MASKED:
        because = f" ({', '.join(better.because)})" if better.because else ""
        return Finding(
            MASKED,
            f"{start}, and the masking verdict of {better.model} is masked{because}",
            figures,
            images_of(table),
        )
    same = [
        one.column for one in table.strengths if one.codes == table.epsilon_codes and one.column in columns
    ]
    ball = f"within {table.epsilon_codes} codes"
    if not same:
        return Finding(
            HOLDS, f"{start}; verdict {better.verdict}; no attack of the table is of the size {ball} that the adaptive "
            "ones have", figures, images_of(table),
        )  # fmt: skip
    there = mean_of(better, same) - mean_of(worse, same)
    words = f"{ball} {there:.2f} ({', '.join(same)}), under adaptive attacks {adaptive:.2f}"
    if there >= margin > adaptive:
        return Finding(MASKED, f"{start}; {words}: the gain disappears", figures, images_of(table))
    return Finding(HOLDS, f"{start}; {words}; verdict {better.verdict}", figures, images_of(table))


def _mean_figure(row: RowRecord, columns: Sequence[str], printed: PaperTable, what: str) -> Figure:
    return Figure(
        f"{row.model}, {what}", mean_of(row, columns), _printed_mean(printed, row.model, columns), _PERCENT
    )


def _printed_mean(printed: PaperTable, name: str, columns: Sequence[str]) -> float | None:
    values = [value for column in columns if (value := printed.value(name, column)) is not None]
    return sum(values) / len(values) if len(values) == len(columns) else None


def _printed_gain(printed: PaperTable, pair: Sequence[str], columns: Sequence[str]) -> float | None:
    better, worse = (_printed_mean(printed, name, columns) for name in pair)
    return None if better is None or worse is None else better - worse


def _printed_means(results: Results) -> dict[str, dict[str, float]]:
    """Means of the printed rows: over which columns, then by model."""
    white, black = results.printed("white box"), results.printed("black box")
    attacks = [column for column in white.columns if column != CLEAN]
    ways = {
        "all columns of both tables": ((white, white.columns), (black, black.columns)),
        "all attacks of both tables": ((white, attacks), (black, black.columns)),
        "the white-box table": ((white, white.columns),),
        "the white-box attacks": ((white, attacks),),
        "the black-box table": ((black, black.columns),),
    }
    found: dict[str, dict[str, float]] = {}
    for way, parts in ways.items():
        found[way] = {}
        for name in paper_tables()[white.number].rows:
            values = [table.value(name, column) or 0.0 for table, columns in parts for column in columns]
            found[way][name] = sum(values) / len(values)
    return found
