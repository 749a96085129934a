"""A page as headless Chromium draws it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")
ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)
PATIENCE_MS = 120_000
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on the path: the page is not rendered"
)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What came of a page: what it said on the console, what it asked for, and how it stands."""

    complaints: list[str]
    requests: list[str]
    charts: int
    overflow_px: int


def draw(path: Path, width: int, least_layers: int) -> Drawn:
    """Opens a page, waits until so many layers of charts are drawn, and measures it."""
    sync_api = pytest.importorskip("playwright.sync_api")
    complaints: list[str] = []
    requests: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS.split(), timeout=PATIENCE_MS
        )
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_function(f"document.querySelectorAll('.main-svg').length >= {least_layers}")
        charts = page.locator(".js-plotly-plot:has(.main-svg)").count()
        overflow_px = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        browser.close()
    return Drawn(complaints=complaints, requests=requests, charts=charts, overflow_px=overflow_px)
