"""Write docs/pictures/report-PART.png, one for each part of a report: `make screenshots`, or `python docs/screenshots.py PAGE`.

They have at most 120 kB each: a palette, and fewer colours where that is not enough.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

PICTURES = Path(__file__).resolve().parent / "pictures"
WIDTH, HEIGHT = 1040, 880  # of the window, and the most of a section
MARGIN = 18
MOST_BYTES = 120_000


def photograph(page_file: Path) -> dict[str, bytes]:
    """A PNG of the verdict and the network, "overview", and of the top of each section, by the section's id."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(page_file.resolve().as_uri())
        top, network = (page.locator(each).first.bounding_box() for each in ("main", "#verdict + section figure"))
        bottom = network["y"] + network["height"] + MARGIN
        clip = {"x": max(0, top["x"] - MARGIN), "y": 0, "width": top["width"] + 2 * MARGIN, "height": bottom}
        shots = {"overview": page.screenshot(full_page=True, clip=clip)}
        page.add_style_tag(content=".contents, .tools { display: none !important } h2 { margin-top: 4rem }")
        for section in page.locator("main > section").all():
            box = section.bounding_box()
            height = min(box["height"], HEIGHT) + 2 * MARGIN
            clip = {"x": box["x"] - MARGIN, "y": box["y"] - MARGIN, "width": box["width"] + 2 * MARGIN, "height": height}
            shots[section.get_attribute("id")] = page.screenshot(full_page=True, clip=clip)
        browser.close()
    return shots


def small(png: bytes) -> bytes:
    """The same with a palette, in at most `MOST_BYTES`."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    for colors in (256, 128, 64, 32):
        file = io.BytesIO()
        image.quantize(colors, dither=Image.Dither.NONE).save(file, "png", optimize=True)
        if file.tell() <= MOST_BYTES:
            return file.getvalue()
    return small(_to_png(image.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.LANCZOS)))


def _to_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        sys.exit("There is no such page.\nWrite one first, for example by make run; then: python docs/screenshots.py report.html")
    for part, shot in photograph(Path(sys.argv[1])).items():
        path = PICTURES / f"report-{part}.png"
        path.write_bytes(small(shot))
        print(f"{path.name}: {path.stat().st_size // 1000} kB")
