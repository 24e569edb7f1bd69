"""The page in a real browser: nothing fails or is loaded, everybody can read it, tables sort and filter, it prints."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from ohmfold.toolchain.report import write_report
from ohmfold.toolchain.run_record import FindingRow, VerdictRow

if TYPE_CHECKING:
    from pathlib import Path

sync_api = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
)

CHROMIUM = next(
    (path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)"
    ),
]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
# What is left of A4 between the margins of the style, in CSS pixels.
PAPER = {"width": 703, "height": 1032}
HOSTILE = "<script>console.error('ran')</script><img src=x onerror=console.error('ran')>"


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        # Without a sandbox, as in a container of which root is the only user.
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(compiled_run, tmp_path_factory) -> Path:
    """Two runs beside each other, the second with other accuracies, a verdict, and notes that would run."""
    folder = tmp_path_factory.mktemp("reported") / "other"
    shutil.copytree(compiled_run, folder)
    record = json.loads((folder / "run.json").read_text())
    record["accuracy"][1]["correct"] = 2
    record["artifacts"][0]["notes"] = [HOSTILE]
    record["title"] = record["machine"] = HOSTILE
    checks = [
        FindingRow(name=name, outcome=outcome, effect=0.5, needed=35, text="Evidence", source="Somebody")
        for name, outcome in (("gradients vanish", "masked"), ("randomness", "clear"))
    ]
    verdict = VerdictRow(
        variant="plain", label="masked", images=24, norm="inf", epsilon_codes=30, findings=tuple(checks)
    )
    record["verdicts"] = [verdict.model_dump(mode="json")]
    (folder / "run.json").write_text(json.dumps(record))
    return write_report([compiled_run, folder], folder / "page.html")


def opened(browser, report, **options):
    page = browser.new_context(**{"viewport": DESKTOP, **options}).new_page()
    page.goto(report.as_uri())
    return page


def column(page, table, number):
    """The texts of a column of the rows that are shown."""
    return page.evaluate(
        "([table, number]) => [...document.querySelector(table).tBodies[0].rows].filter(row => !row.hidden)"
        ".map(row => row.cells[number].dataset.sort ?? row.cells[number].textContent.trim())",
        [table, number],
    )


def test_nothing_fails_runs_or_is_asked_for_elsewhere(browser, report):
    page = browser.new_context(viewport=DESKTOP).new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_load_state("networkidle")
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert HOSTILE in page.inner_text("h1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser, report, scheme):
    page = opened(browser, report, color_scheme=scheme, bypass_csp=True)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = axe.Axe().run(page).response
    assert len(found["passes"]) > 10
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []


def test_dark_is_dark(browser, report):
    colours = [
        opened(browser, report, color_scheme=scheme).evaluate(
            "getComputedStyle(document.body).backgroundColor"
        )
        for scheme in ("light", "dark")
    ]
    assert colours == ["rgb(255, 255, 255)", "rgb(20, 24, 29)"]


def test_a_telephone_scrolls_down_alone(browser, report):
    page = opened(browser, report, viewport=PHONE)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    # Wide tables scroll inside their box, and one of these is indeed wider than it.
    assert page.evaluate(
        "[...document.querySelectorAll('.scroll')].some(box => box.scrollWidth > box.clientWidth)"
    )


def test_tables_sort_up_down_and_back(browser, report):
    page = opened(browser, report)
    table = "#accuracy table.sortable"
    before = column(page, table, 3)
    assert before != sorted(before, key=float)
    button = page.locator(f"{table} thead th").nth(3).locator("button")
    for state in ("ascending", "descending"):
        button.click()
        assert page.locator(f"{table} thead th").nth(3).get_attribute("aria-sort") == state
        wanted = sorted(before, key=float, reverse=state == "descending")
        assert column(page, table, 3) == wanted
    button.click()
    assert column(page, table, 3) == before


def test_tables_are_sorted_by_the_keyboard_too(browser, report):
    page = opened(browser, report)
    head = page.locator("#attacks table.sortable thead th").nth(1)
    head.locator("button").focus()
    page.keyboard.press("Enter")
    names = column(page, "#attacks table.sortable", 1)
    assert names == sorted(names)
    assert names[0] != names[-1]


def test_a_filter_leaves_the_rows_that_hold_every_word(browser, report):
    page = opened(browser, report)
    table = "#attacks table.sortable"
    every = column(page, table, 1)
    field = page.locator("#attacks .filter input")
    field.fill("plain fgsm")
    assert column(page, table, 1) == ["fgsm"] * 2
    assert page.locator("#attacks .filters output").inner_text() == f"2 of {len(every)} rows"
    field.fill("")
    assert column(page, table, 1) == every


def test_without_scripts_the_page_says_the_same(browser, report):
    page = opened(browser, report, java_script_enabled=False)
    assert page.locator("button, input").count() == 0
    assert page.locator("#attacks table tbody tr").count() == 8


def test_pictures_and_charts_have_words(browser, report):
    page = opened(browser, report)
    pictures = page.locator("img")
    assert pictures.count() > 0
    assert all(pictures.nth(place).get_attribute("alt") for place in range(pictures.count()))
    assert page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    charts = page.locator("svg.chart")
    assert charts.count() >= 4
    assert (
        page.locator("svg.chart > title").count()
        == page.locator("svg.chart > desc").count()
        == charts.count()
    )


def test_paper_cuts_off_no_table_and_unfolds_what_is_folded(browser, report):
    page = opened(browser, report, viewport=PAPER)
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not(.minor):not([open])").count() == 0
    cut = page.evaluate(
        "[...document.querySelectorAll('table, td, th, svg, img, pre')].filter(one =>"
        " one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 200))"
    )
    assert cut == []
    assert page.locator(".filters").first.is_hidden()
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() < page.locator("details").count()
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF-")


def test_two_runs_show_what_changed(browser, report):
    page = opened(browser, report)
    text = page.inner_text("#changes")
    assert "entries differ" in text
    row = page.locator("#changes tbody tr", has_text="plain, integer, emulator").first.inner_text()
    assert "points" in row
    assert "changed" in row
    masked = page.locator("#changes tbody tr", has_text="gradients vanish").inner_text()
    assert "masked" in masked
    assert "What changed" in page.inner_text("nav")
