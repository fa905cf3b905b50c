"""asv's own page: made from stored runs, and with its scripts beside it, so that it works without a network.

About 15 s.  What needs asv, npm, playwright or Chromium is skipped without them; npm reaches its registry.
"""

import base64
import functools
import hashlib
import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import stored_results

from rnnbench.cli.main import main
from rnnbench.suite.case import Case

ROOT = Path(__file__).parents[1]
TOOL = ROOT / "tools" / "asv_offline" / "asv_offline.py"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CASES = [Case("lstm", "step", T=steps, B=16, I=64, H=64) for steps in (16, 64)]
BENCHMARK = "lstm.step.T16_B16_I64_H64"

specification = importlib.util.spec_from_file_location("asv_offline", TOOL)
assert specification is not None
assert specification.loader is not None
asv_offline = importlib.util.module_from_spec(specification)
specification.loader.exec_module(asv_offline)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A repository with two commits, and the results of a run of each as asv's: numba_cpu is slower in the second."""
    pytest.importorskip("asv", reason="asv is not installed")
    root = tmp_path_factory.mktemp("project")
    (root / "suites").mkdir()
    (root / "suites" / "__init__.py").touch()
    shutil.copy(ROOT / "asv.conf.json", root)
    environment = {"HOME": str(root), "PATH": os.environ["PATH"]}

    def called(*command: str) -> str:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    git = functools.partial(called, "git", "-c", "user.name=n", "-c", "user.email=e@x")
    git("init", "-q", "-b", "main", ".")
    for number, milliseconds in enumerate((16.0, 24.0)):
        git("commit", "-q", "--allow-empty", "-m", f"{milliseconds} ms")
        times = {
            (name, case): [seconds * (1 + k / 1000) for k in range(12)]
            for name, seconds in (("numba_cpu", milliseconds / 1000), ("torch_nn", 0.032))
            for case in CASES
        }
        commit = git("rev-parse", "HEAD").strip()
        path = stored_results.write(
            root / f"{number}.jsonl", times, started=f"2026-01-0{number + 1}T00:00:00+00:00", machine="m", commit=commit
        )
        assert main(["export", "asv", str(path), "-o", str(root / ".asv" / "results")]) == 0
    asv = functools.partial(called, sys.executable, "-m", "asv")
    asv("publish")
    return SimpleNamespace(asv=asv, page=root / ".asv" / "html")


@pytest.fixture
def page(project: Any, tmp_path: Path) -> Path:
    """A copy of the published page."""
    return Path(shutil.copytree(project.page, tmp_path / "html"))


@pytest.fixture(scope="module")
def offline(project: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the published page with its scripts beside it."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = Path(shutil.copytree(project.page, tmp_path_factory.mktemp("offline") / "html"))
    done = subprocess.run([sys.executable, TOOL, folder], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{folder / 'index.html'}: {len(asv_offline.FILES)} files put into {folder / 'vendor'}\n"
    return folder


def test_asv_compares_exported_runs(project: Any) -> None:
    lines = project.asv("compare", "main~1", "main").splitlines()
    changed = {line.split("|")[-2].strip(): [part.strip() for part in line.split("|")[1:5]] for line in lines if "ms" in line}
    assert changed[f"{BENCHMARK}('numba_cpu')"][0] == "+"
    assert changed[f"{BENCHMARK}('numba_cpu')"][3] == "1.5"
    assert changed[f"{BENCHMARK}('torch_nn')"][0] == ""
    assert len(changed) == 4


def test_asv_publishes_exported_runs(project: Any) -> None:
    index = json.loads((project.page / "index.json").read_text("utf-8"))
    assert index["benchmarks"][BENCHMARK]["params"] == [["'numba_cpu'", "'torch_nn'"]]
    assert len(index["revision_to_hash"]) == 2
    (graph,) = (project.page / "graphs").glob(f"arch/**/{BENCHMARK}.json")
    middle = 1 + 5.5 / 1000
    assert json.loads(graph.read_text("utf-8")) == [
        [place, pytest.approx([first * middle, 0.032 * middle], rel=1e-3)] for place, first in enumerate((0.016, 0.024))
    ]


def outside(text: str) -> list[str]:
    """What a page loads from other servers."""
    return re.findall(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="((?:https?:)?//[^"]*)"', text)


def test_every_script_of_the_installed_asv_is_known(page: Path) -> None:
    assert set(outside((page / "index.html").read_text("utf-8"))) == set(asv_offline.FILES)


def test_the_packages_are_pinned_by_digest_and_name_no_registry() -> None:
    lock = json.loads((TOOL.parent / "package-lock.json").read_text("utf-8"))
    packages = {name.removeprefix("node_modules/"): facts for name, facts in lock["packages"].items() if name}
    assert {file.partition("/")[0] for file in asv_offline.FILES.values()} == set(packages)
    assert all(facts["integrity"].startswith("sha512-") and "resolved" not in facts for facts in packages.values())


def test_the_page_loads_nothing_from_outside(offline: Path) -> None:
    text = (offline / "index.html").read_text("utf-8")
    assert outside(text) == []
    assert "integrity=" not in text
    for link in re.findall(r'"(vendor/[^"]*)"', text):
        assert (offline / link).is_file()
        assert link.split("/")[1] == "flot-orderbars" or list((offline / "vendor" / link.split("/")[1]).glob("LICENSE*"))


def test_the_files_are_those_that_asv_names(project: Any, offline: Path) -> None:
    """By the digests in asv's page; npm has flot as its authors wrote it alone, and another version of stupidtable."""
    text = (project.page / "index.html").read_text("utf-8")
    digests = dict(re.findall(r'(?:src|href)="(https://[^"]*)" integrity="([^"]*)"', text))
    other = set()
    for url, digest in digests.items():
        content = (offline / "vendor" / asv_offline.FILES[url]).read_bytes()
        kind = digest.partition("-")[0]
        if digest != f"{kind}-{base64.b64encode(hashlib.new(kind, content).digest()).decode()}":
            other.add(asv_offline.FILES[url].partition("/")[0])
    assert len(digests) == len(asv_offline.FILES)
    assert other == {"flot", "stupid-table-plugin"}


def test_an_offline_page_is_left_as_it_is(offline: Path) -> None:
    before = (offline / "index.html").read_bytes()
    assert asv_offline.make_offline(offline) == []
    assert (offline / "index.html").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "path", "said"),
    [
        (lambda text: text, "", "npm is missing"),
        (lambda text: text.replace("flot/0.8.3/jquery.flot.min", "flot/9/jquery.flot.min"), None, "the page loads https://"),
        (None, None, "cannot read"),
    ],
    ids=["no npm", "another asv", "no page"],
)
def test_what_cannot_be_done_is_told_and_changes_nothing(
    page: Path, tmp_path: Path, change: Any, path: str | None, said: str
) -> None:
    index = page / "index.html"
    if change is None:
        index.unlink()
    else:
        index.write_text(change(index.read_text("utf-8")), "utf-8")
    before = {file: file.read_bytes() for file in page.rglob("*") if file.is_file()}
    environment = os.environ | ({} if path is None else {"PATH": path})
    done = subprocess.run([sys.executable, TOOL, page], capture_output=True, text=True, timeout=1800, env=environment)
    assert done.returncode == 4
    assert done.stderr.startswith(f"asv_offline: {said}")
    assert "Traceback" not in done.stderr
    assert {file: file.read_bytes() for file in page.rglob("*") if file.is_file()} == before


@pytest.fixture
def served(offline: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(offline)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


INKED = """canvas => {
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    const colours = new Set();
    for (let i = 0; i < pixels.length; i += 4)
        if (pixels[i + 3] === 255 && Math.max(...pixels.slice(i, i + 3)) - Math.min(...pixels.slice(i, i + 3)) > 60)
            colours.add(pixels.slice(i, i + 3).join());
    return [...colours];
}"""
"""The opaque colours on a canvas that are no shade of grey: those of lines, not of axes."""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path")
def test_the_page_draws_in_a_browser_that_reaches_this_machine_alone(served: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    complaints, requests = [], []
    with playwright.sync_playwright() as control:
        browser = control.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(served)
        page.wait_for_selector("#summarygrid-display canvas")
        assert page.locator("#summarygrid-display .benchmark-plot").count() == len(CASES)
        plugins = page.evaluate("$.plot.plugins.map(plugin => plugin.name)")
        assert {"time", "selection", "categories", "orderBars", "axisLabels"} <= set(plugins)
        assert page.evaluate("[md5, $.fn.stupidtable, $.fn.modal].map(tool => typeof tool)") == ["function"] * 3
        page.goto(f"{served}#{BENCHMARK}")
        page.wait_for_selector("#main-graph .legendLabel")
        assert page.locator("#main-graph .legendLabel").all_inner_texts() == ["backend-numba_cpu", "backend-torch_nn"]
        assert len(page.locator("#main-graph canvas").first.evaluate(INKED)) >= 2
        page.goto(f"{served}#/regressions")
        page.wait_for_selector("#regressions-body table tbody tr")
        assert "numba_cpu" in page.locator("#regressions-body").inner_text()
        browser.close()
    assert complaints == []
    assert requests
    assert [url for url in requests if not url.startswith(served)] == []
