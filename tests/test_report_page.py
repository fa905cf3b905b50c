"""The report in a real browser: opened from disk, drawn, filtered, sorted, dark, and silent on the network.

About 25 s.  Needs playwright, axe-playwright-python and Chromium (Debian: apt-get install chromium); skipped without
them, but not where CI is set: there they are missing by mistake.
"""

import json
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import synthetic_results
from helpers.browser import Opened
from helpers.synthetic_results import HOSTILE

from rnnbench.reports import to_pandas, write_asv_html, write_html
from rnnbench.reports.reproduce import source
from rnnbench.reports.theme import OKABE_ITO
from rnnbench.suite.case import Case

CHARTS = ["map_T", "length", "hidden", "window_time", "window_error", "window_memory", "roofline", "startup", "gates"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    synthetic_results.write_roofs(folder)
    return write_html(synthetic_results.write(folder / "grid.jsonl"), folder / "grid.html")


@pytest.fixture(scope="module")
def first_opened(browser: Any, file: Path) -> Iterator[tuple[Opened, dict[str, str]]]:
    """The page on light, and what its filters are at first."""
    opened = Opened(browser, file)
    filters = "select => [select.name, select.value]"
    yield opened, dict(opened.page.evaluate(f"[...document.querySelectorAll('#filters select')].map({filters})"))
    opened.context.close()


@pytest.fixture
def opened(first_opened: tuple[Opened, dict[str, str]]) -> Opened:
    """The one page of most tests, with no search and the filters that it had at first."""
    opened, filters = first_opened
    opened.page.fill("#find", "")
    script = """filters => {
        const changed = Object.entries(filters).filter(([name, value]) => form.elements[name].value !== value);
        for (const [name, value] of changed) form.elements[name].value = value;
        if (changed.length) showAll();
    }"""
    opened.page.evaluate(script, filters)
    opened.wait()
    return opened


def test_it_opens_from_disk_with_every_chart_drawn_and_asks_for_nothing(opened: Opened, file: Path) -> None:
    assert {name: opened.marks_of(name) > 0 for name in CHARTS} == dict.fromkeys(CHARTS, True)
    assert opened.complaints == []
    assert opened.requests == [file.as_uri()]


def test_hostile_names_make_no_elements(opened: Opened) -> None:
    assert opened.page.locator("img").count() == 0
    assert HOSTILE in opened.page.locator("#filters [name=cell]").evaluate("select => [...select.options].map(o => o.value)")
    opened.pick("baseline", HOSTILE)
    assert opened.marks_of("map_T", ".mark-rect") > 0
    assert opened.complaints == []


def test_a_filter_changes_charts_and_table(opened: Opened) -> None:
    before = {name: opened.marks_of(name) for name in CHARTS}
    opened.pick("cell", "lstm")
    after = {name: opened.marks_of(name) for name in CHARTS}
    assert all(0 < after[name] < before[name] for name in CHARTS if name != "startup")  # start-up shows medians over cases
    assert set(opened.column("cell")) == {"lstm"}
    opened.pick("phase", "tbptt")
    assert opened.marks_of("map_T") == 0
    assert opened.page.locator("[data-chart=map_T] .empty").is_visible()
    assert opened.marks_of("window_time") == after["window_time"]
    assert opened.complaints == []


def test_the_baseline_can_be_picked(opened: Opened) -> None:
    opened.pick("cell", "gru")
    first = opened.page.locator("[data-chart=map_T] .chart svg g.mark-text.role-mark text").all_text_contents()
    assert set(opened.column("result")) >= {"slower", "faster", "unclear", "baseline", "crashed"}
    opened.pick("baseline", "numpy_ref")
    second = opened.page.locator("[data-chart=map_T] .chart svg g.mark-text.role-mark text").all_text_contents()
    assert first != second
    backends, results = opened.column("backend"), opened.column("result")
    # the reference is slowest everywhere but against torch_eager at H = 32
    assert {result for name, result in zip(backends, results, strict=True) if name == "numba_cpu"} == {"faster"}
    assert {result for name, result in zip(backends, results, strict=True) if name == "numpy_ref"} == {"baseline"}


@pytest.mark.parametrize("baseline", ["numpy_ref", "torch_nn"])  # listed before and after the backend that is looked at
def test_the_numbers_in_the_table_are_those_of_the_frames(opened: Opened, file: Path, baseline: str) -> None:
    opened.pick("baseline", baseline)
    opened.page.fill("#find", "gru T1024 B16 I64 H256 numba_cpu")
    summary = to_pandas(file.with_suffix(".jsonl"), baseline=baseline).summary
    chosen = summary[(summary["cell"] == "gru") & (summary["phase"] == "step") & (summary["T"] == 1024) & (summary["H"] == 256)]
    row = chosen[chosen["backend"] == "numba_cpu"].iloc[0]
    number, unit = opened.column("per call")[0].split()
    # three digits are shown
    assert float(number) * {"s": 1.0, "ms": 1e-3}[unit] == pytest.approx(row["seconds"], rel=5e-3)
    low, high = opened.column("95% interval")[0].split(" to ")
    assert float(opened.column("speed")[0][:-1]) == pytest.approx(row["speedup"], rel=5e-3)
    assert float(low) == pytest.approx(row["speedup_low"], rel=5e-3)
    assert float(high) == pytest.approx(row["speedup_high"], rel=5e-3)


def test_another_sweep_can_be_shown(opened: Opened) -> None:
    figure = opened.page.locator("[data-chart=length]")
    before = figure.locator(".fits").inner_text()
    options = figure.locator(".sweep option").all_inner_texts()
    assert len(options) == 4  # H, under the phase that is picked
    figure.locator(".sweep select").select_option(label=options[-1])
    opened.wait()
    assert figure.locator(".fits").inner_text() != before
    assert opened.marks_of("length") > 0


def test_the_table_sorts_and_finds(opened: Opened) -> None:
    opened.page.fill("#find", "lstm numba_cpu")
    assert set(opened.column("backend")) == {"numba_cpu"}
    button = opened.page.locator("#table thead button", has_text="GFLOP/s")
    button.click()
    rising = [float(value) for value in opened.column("GFLOP/s")]
    button.click()
    falling = [float(value) for value in opened.column("GFLOP/s")]
    assert rising == sorted(rising)
    assert falling == sorted(rising, reverse=True)
    assert len(set(rising)) > 1
    assert opened.page.locator("#table th[aria-sort=descending]").inner_text().startswith("GFLOP/s")


def test_rows_without_a_number_sort_last_both_ways(opened: Opened) -> None:
    opened.page.fill("#find", "elman H64 torch_nn")
    button = opened.page.locator("#table thead button", has_text="per call")
    for _ in range(2):
        button.click()
        assert opened.column("per call")[-4:] == ["", "", "", ""]


def test_a_point_opens_its_case_by_mouse(opened: Opened) -> None:
    opened.pick("cell", "lstm")
    mark = opened.page.locator("[data-chart=length] .chart svg g.role-mark.mark-symbol > path").first
    mark.scroll_into_view_if_needed()
    mark.click()
    title = opened.page.locator("#case-title").inner_text()
    label, backend = title.split(", ", 1)
    assert label.startswith("lstm step T16 ")
    assert backend in opened.page.locator("#case code").inner_text()
    assert opened.page.locator("#case .samples circle").count() == synthetic_results.ROUNDS * 5
    assert re.match(r"\d.* per call, 95% interval .*12 rounds\.", opened.page.locator("#case .outcome").inner_text())
    opened.page.keyboard.press("Escape")
    assert opened.complaints == []


def test_points_are_reached_and_opened_by_keyboard(opened: Opened) -> None:
    opened.pick("cell", "gru")
    chart = opened.page.locator("[data-chart=roofline] .chart")
    chart.focus()
    for key in ("End", "ArrowLeft"):
        opened.page.keyboard.press(key)
    said = opened.page.locator("[data-chart=roofline] .picked").inner_text()
    place, label = re.match(r"(\d+ of \d+): ([^,]+), ", said).groups()
    number, total = map(int, place.split(" of "))
    assert number == total - 1 > 10
    opened.page.keyboard.press("Enter")
    assert opened.page.locator("#case-title").inner_text().startswith(label)
    opened.page.keyboard.press("Escape")
    assert chart.evaluate("e => e === document.activeElement")


def test_a_failed_tile_opens_with_its_reason(opened: Opened) -> None:
    opened.pick("cell", "elman")
    opened.page.locator("[data-chart=map_T] .chart svg g.mark-text.role-mark text", has_text="n/a").first.click()
    assert opened.page.locator("#case .outcome").inner_text() == "No result: unsupported. no such nonlinearity"
    assert opened.page.locator("#case .samples").is_hidden()
    opened.page.keyboard.press("Escape")


def test_a_chart_that_the_filters_leave_empty_says_for_what_it_has_rows_and_clears_them(opened: Opened) -> None:
    at_first = opened.marks_of("window_error")
    opened.pick("cell", "lstm")
    opened.pick("H", "64")
    empty = opened.page.locator("[data-chart=window_error] .empty")
    assert empty.locator("span").inner_text() == "Nothing was measured with these filters, but there are results for H = 128."
    empty.locator("button").click()
    opened.wait()
    assert empty.is_hidden()
    assert opened.marks_of("window_error") == at_first
    assert opened.page.evaluate("form.elements.phase.value") == "step"
    assert opened.complaints == []


def test_the_filters_name_the_fastest_backend(opened: Opened) -> None:
    opened.pick("cell", "lstm")
    opened.pick("H", "64")
    here = opened.page.locator("#selection")
    assert here.locator("p").inner_text() == "step, lstm, H = 64: numba_cpu is fastest in all 4 cases."
    opened.pick("T", "1024")
    one = "one case: lstm step T1024 B16 I64 H64"
    assert here.locator("p").inner_text() == f"step, lstm, T = 1024, H = 64 ({one}): numba_cpu is fastest."
    first = here.locator("tbody tr").first.inner_text().split("\t")
    assert (first[:2], first[-1]) == (["numba_cpu", "baseline"], "1 of 1")
    opened.pick("T", "")
    opened.pick("H", "128")
    # made to be as fast: torch_nn, and the backend with the hostile name
    assert re.search(r": no backend is clearly fastest in 4 cases; 4 tied between ", here.locator("p").inner_text())


def test_the_cost_of_a_window_can_be_read(opened: Opened) -> None:
    rows = [row.inner_text().split("\t") for row in opened.page.locator("#windows tbody tr").all()]
    (row,) = [row for row in rows if row[:2] == ["lstm", "32"]]
    # errors of the made-up file: 2 exp(-window / 40)
    assert row[2] == "90%"
    assert [row[2] for row in rows if row[1] == "1024 (full BPTT)"] == ["none"] * 3


def test_axe_finds_nothing_serious(opened: Opened) -> None:
    opened.page.fill("#find", "gru T64 H64")  # rows are all alike; axe takes long for hundreds
    assert opened.violations() == []
    opened.page.locator("#table tbody button").first.click()
    assert opened.violations() == []
    opened.page.keyboard.press("Escape")


def test_a_row_gives_the_python_that_reproduces_it(opened: Opened) -> None:
    opened.page.fill("#find", "gru T64 H128 numba_cpu")
    assert opened.page.locator("#table tbody tr").count() == 1
    opened.page.locator("#table tbody button").focus()
    opened.page.keyboard.press("Enter")
    shown = opened.page.locator("#case code").inner_text()
    assert shown.strip() == source(Case("gru", "step", 64, 16, 64, 128), "numba_cpu").strip()
    opened.page.keyboard.press("Escape")
    assert not opened.page.locator("#case").is_visible()


@pytest.fixture(scope="module")
def dark(browser: Any, file: Path) -> Iterator[Opened]:
    """The page on a dark system; a test leaves it dark."""
    with Opened(browser, file, theme="dark") as opened:
        yield opened


def colours(opened: Opened) -> tuple[str, str]:
    """Of the page's ground and of a chart's ink."""
    opened.wait()
    ink = opened.page.locator("[data-chart=length] .chart svg g.role-axis-title text").first.get_attribute("fill")
    return opened.page.evaluate("getComputedStyle(document.body).backgroundColor"), ink or "none"


ON_DARK, ON_LIGHT = ("rgb(20, 23, 27)", "#e8eaed"), ("rgb(255, 255, 255)", "#1b1f24")


def test_dark_mode_follows_the_system_and_the_button_redraws(dark: Opened) -> None:
    assert colours(dark) == ON_DARK
    dark.page.fill("#find", "gru T64 H64")
    assert dark.violations() == []
    dark.page.click("#theme")
    assert colours(dark) == ON_LIGHT
    assert {name: dark.marks_of(name) > 0 for name in CHARTS} == dict.fromkeys(CHARTS, True)
    dark.page.click("#theme")
    assert colours(dark) == ON_DARK
    assert dark.complaints == []


def test_a_dark_page_is_light_where_it_is_shown_as_on_paper(dark: Opened) -> None:
    for medium, theme, expected in (("print", "light", ON_LIGHT), ("screen", "dark", ON_DARK)):
        dark.page.emulate_media(media=medium, color_scheme="dark")
        dark.page.locator(f"html[data-theme={theme}]").wait_for(state="attached")  # the page is told later
        assert colours(dark) == expected


def test_a_dark_page_prints_light_with_its_details_open(dark: Opened, tmp_path: Path) -> None:
    printed = dark.page.pdf(path=tmp_path / "report.pdf")
    lines = {theme: {colour.lower() for colour in OKABE_ITO[theme][1:3]} for theme in OKABE_ITO}
    assert {"#1b1f24", *lines["light"]} <= inks(printed)
    assert not {"#14171b", "#e8eaed", *lines["dark"]} & inks(printed)
    assert dark.page.locator(".answers details").first.evaluate("e => e.open")
    assert colours(dark) == ON_DARK


def inks(printed: bytes) -> set[str]:
    """The colours that a PDF fills and strokes with (ISO 32000, 8.6.8)."""
    assert printed.startswith(b"%PDF")
    found = set()
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", printed, re.DOTALL):
        with suppress(zlib.error):  # a font, or an image
            for colour in re.findall(rb"([\d.]+) ([\d.]+) ([\d.]+) (?:rg|RG)\b", zlib.decompress(stream)):
                found.add("#" + "".join(f"{round(255 * float(part)):02x}" for part in colour))
    return found


@pytest.mark.parametrize("width", [400, 1920])
def test_nothing_but_charts_and_tables_scrolls_sideways(opened: Opened, width: int) -> None:
    opened.page.set_viewport_size({"width": width, "height": 900})
    opened.page.evaluate("drawAll()")
    opened.wait()
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    opened.page.set_viewport_size({"width": 1280, "height": 900})


def test_the_first_screen_answers(opened: Opened) -> None:
    claim = opened.page.locator(".claim").nth(1)
    assert claim.inner_text().startswith(
        "For a training step (forward and BPTT), numba_cpu is fastest in 29 of 49 cases; 16 cases are tied, 4 are unclear."
    )
    assert claim.bounding_box()["y"] < 900


def test_controls_have_names_and_are_reached_by_keyboard(opened: Opened) -> None:
    assert opened.nameless_controls() == 0
    opened.page.locator(".skip").focus()
    reached = opened.reached_by_tab(40)
    assert {"theme", "baseline", "phase", "cell", "chart"} <= reached


def test_the_asv_page_draws_and_sorts(browser: Any, tmp_path: Path) -> None:
    folder = tmp_path / "asv" / "m"
    folder.mkdir(parents=True)
    columns = ["result", "params"]
    for number in range(3):
        values = {"time_step": [[1e-3 * (number + 1), None], [["16", HOSTILE]]], "peakmem_step": [[2e6], []]}
        content = {"version": 2, "commit_hash": f"{number}" * 40, "date": number, "env_name": "env"}
        (folder / f"{number}-env.json").write_text(json.dumps(content | {"result_columns": columns, "results": values}))
    file = write_asv_html(tmp_path / "asv", tmp_path / "asv.html")
    opened = Opened(browser, file)
    assert opened.marks_of("asv", ".mark-symbol") == 3 + 3
    opened.page.locator("#table thead button", has_text="value").click()
    values = [float(value) for value in opened.column("value") if value]
    assert values == sorted(values)
    assert len(values) == 6
    assert opened.complaints == []
    assert opened.requests == [file.as_uri()]
    opened.context.close()
