"""Takes pictures of pages: the first screen at 1,280 and 390 pixels, light and dark.

    python docs/pictures/take_pictures.py outputs/DATE/TIME/report.html=report site/index.html=docs

Each page becomes four files of docs/pictures/: NAME-1280-light.png and so on, of at most 256
colours. It needs Chromium on the path, and playwright and pillow from the extra ``dev``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

FOLDER = Path(__file__).parent
SIZES = {1280: 900, 390: 844}
"""Width and height of a screen in pixels."""
SCHEMES = ("light", "dark")
LARGEST = 150_000
"""Bytes of a picture at most."""
_ARGUMENTS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
_DRAWN = "[...document.querySelectorAll('.chart')].every((one) => one.querySelector('.main-svg'))"


def take_pictures(pages: Sequence[tuple[Path, str]], folder: Path = FOLDER) -> list[Path]:
    """Opens each page in Chromium and returns the pictures that it wrote.

    Args:
        pages: Pages and the names of their pictures.
        folder: Where these are written.

    Raises:
        FileNotFoundError: If there is no Chromium, or a page is missing.
        ValueError: If a picture takes more than `LARGEST` bytes.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        raise FileNotFoundError("pictures need chromium on the path; install it")
    missing = [str(page) for page, _ in pages if not page.is_file()]
    if missing:
        raise FileNotFoundError(f"no such page: {', '.join(missing)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*_ARGUMENTS])
        made = [
            _take(browser, page, folder / f"{name}-{width}-{scheme}.png", scheme)
            for page, name in pages
            for width in SIZES
            for scheme in SCHEMES
        ]
        browser.close()
    return made


def _take(browser: Browser, page: Path, file: Path, scheme: str) -> Path:
    width = int(file.stem.split("-")[-2])
    view = browser.new_page(
        viewport={"width": width, "height": SIZES[width]},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    view.goto(page.resolve().as_uri())
    view.wait_for_function(_DRAWN)
    taken = Image.open(BytesIO(view.screenshot()))
    view.close()
    taken.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
    if file.stat().st_size > LARGEST:
        raise ValueError(f"{file} must take at most {LARGEST:,} bytes, got {file.stat().st_size:,}")
    return file


def main() -> int:
    """Reads PAGE=NAME pairs of the command line and prints the files that were written."""
    parser = argparse.ArgumentParser(description="Take pictures of pages for docs/pictures.")
    parser.add_argument("pages", nargs="+", metavar="PAGE=NAME", help="a page and a name for it")
    pairs = [one.rpartition("=") for one in parser.parse_args().pages]
    for file in take_pictures([(Path(page), name) for page, _, name in pairs]):
        sys.stdout.write(f"{file}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
