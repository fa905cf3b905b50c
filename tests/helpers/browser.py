"""Pages in a real browser, for the tests: Chromium through Playwright, whatever it complains of, and what it asks for."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
]


@contextmanager
def launched() -> Iterator[Any]:
    """A browser; skips the test where Playwright, axe or Chromium is missing, but not where CI is set: there it fails."""
    if os.environ.get("CI"):
        from playwright import sync_api as playwright

        assert CHROMIUM, "no Chromium on the path: .ci/packages installs it"
    else:
        playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
        pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
        if CHROMIUM is None:
            pytest.skip("no Chromium on the path")
    with playwright.sync_playwright() as control:
        browser = control.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Opened:
    """A page with what it said on the console and asked for."""

    def __init__(self, browser: Any, file: Path, *, width: int = 1280, theme: str = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.wait()

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def wait(self) -> None:
        """Until all charts are drawn."""
        drawn = "body[data-drawn]:not([data-drawn=''])"  # no expression, which the page forbids
        self.page.locator(drawn).wait_for(state="attached")

    def pick(self, name: str, value: str) -> None:
        """Set a filter."""
        self.page.select_option(f"#filters [name={name}]", value)
        self.wait()

    def marks(self, kind: str = "") -> int:
        """How many marks the charts show; axes and legends are none."""
        return self.page.locator(f".chart svg g.role-mark{kind} > *").count()

    def marks_of(self, chart: str, kind: str = "") -> int:
        """How many marks one chart shows."""
        return self.page.locator(f"[data-chart={chart}] .chart svg g.role-mark{kind} > *").count()

    def violations(self) -> list[str]:
        """What axe finds serious or critical."""
        from axe_playwright_python.base import AXE_SCRIPT

        self.page.evaluate(AXE_SCRIPT)  # not by a script element, which would need another policy
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        return [
            f"{v['id']}: {node['target']} {node['html'][:200]}"
            for v in found
            for node in v["nodes"]
            if v["impact"] in ("serious", "critical")
        ]

    def column(self, title: str) -> list[str]:
        """The texts of a column of the table."""
        heads = self.page.locator("#table thead th").all_inner_texts()
        index = [head.strip(" ▲▼\n") for head in heads].index(title)
        return self.page.locator(f"#table tbody tr td:nth-child({index + 1})").all_inner_texts()

    def nameless_controls(self) -> int:
        """Visible buttons and fields that a screen reader has no name for."""
        return self.page.evaluate(
            """[...document.querySelectorAll("button, select, input")].filter(e => e.checkVisibility() &&
               !(e.textContent.trim() || e.labels?.length || e.getAttribute("aria-label"))).length"""
        )

    def reached_by_tab(self, presses: int) -> set[str]:
        """The names or classes of what the keyboard reaches."""
        reached = set()
        for _ in range(presses):
            self.page.keyboard.press("Tab")
            reached.add(
                self.page.evaluate("(e => e.name || e.id || String(e.className).split(' ')[0])(document.activeElement)")
            )
        return reached
