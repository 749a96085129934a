"""A page as headless Chromium draws it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@contextmanager
def open_page(width: int) -> Iterator[Any]:
    """Opens Chromium's view of a page, not yet loaded, and closes the browser at the end."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS.split(), timeout=PATIENCE_MS
        )
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        yield page
        browser.close()


def draw(path: Path, width: int, least_layers: int) -> Drawn:
    """Opens a page, waits until so many layers of charts are drawn, and measures it."""
    complaints: list[str] = []
    requests: list[str] = []
    with open_page(width) as page:
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_function(f"document.querySelectorAll('.main-svg').length >= {least_layers}")
        charts = page.locator(".js-plotly-plot:has(.main-svg)").count()
        overflow_px = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    return Drawn(complaints=complaints, requests=requests, charts=charts, overflow_px=overflow_px)


def find_violations(path: Path) -> list[str]:
    """Returns what axe-core calls serious or critical in a page, all folds open.

    The page is checked light at 1,280 pixels, and dark at 390.
    """
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found: list[str] = []
    with open_page(1280) as page:
        page.goto(path.as_uri())
        page.wait_for_function("document.querySelectorAll('.main-svg').length >= 3")
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        for width, scheme in ((1280, "light"), (390, "dark")):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            found += [
                f"{scheme} {width}: {one['id']}: {node['html'][:120]}"
                for one in axe.run(page).response["violations"]
                if one["impact"] in ("serious", "critical")
                for node in one["nodes"]
            ]
    return found
