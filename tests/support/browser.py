"""The system's Chromium, run headless by Playwright, for tests of pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium() -> str | None:
    """The path of the system's Chromium, if there is one."""
    return next((path for path in map(shutil.which, _NAMES) if path is not None), None)


@dataclass
class Visit:
    """An open page, with its console's warnings and errors, and the addresses that it requested."""

    page: Any
    warnings: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def draw_all(self) -> int:
        """Scroll to each chart and wait until it is drawn; returns their number."""
        count = int(self.page.locator("[data-chart]").count())
        for i in range(count):
            self.draw(i)
        return count

    def draw(self, chart: int) -> Any:
        """Scroll to one chart, counted from 0, wait until it is drawn, and return it."""
        self.page.locator("[data-chart]").nth(chart).scroll_into_view_if_needed()
        return self.page.wait_for_selector(f'[data-chart="{chart}"][data-drawn]')


@contextmanager
def browser() -> Iterator[Any]:
    """A browser. Skips the test where there is no Chromium."""
    path = chromium()
    if path is None:
        pytest.skip("no Chromium is installed")
    playwright = pytest.importorskip("playwright.sync_api")
    # Chromium refuses its sandbox to root.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, args=options)
        try:
            yield running
        finally:
            running.close()


@contextmanager
def visit(running: Any, page: Path, *, width: int = 1280, scheme: str = "light") -> Iterator[Visit]:
    """Open the file `page` in a window of `width` pixels."""
    context = running.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    try:
        found = Visit(context.new_page())
        found.page.on("console", lambda entry: entry.type in ("error", "warning") and found.warnings.append(entry.text))
        found.page.on("pageerror", lambda error: found.warnings.append(str(error)))
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.goto(page.resolve().as_uri())
        yield found
    finally:
        context.close()
