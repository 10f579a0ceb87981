"""A picture of a report, for the documents.

    python -m benchmarks.picture REPORT.html OUT.png [--scheme dark] [--sort drop] [--row 0]

Needs chromium and playwright (`apt-get install chromium`, `pip install playwright`).
"""

import argparse
import shutil
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    parser.add_argument("--sort", default="file")
    parser.add_argument("--row", type=int, default=0)
    parser.add_argument("--width", type=int, default=1280)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        size = {"width": options.width, "height": 640}
        page = browser.new_page(viewport=size, color_scheme=options.scheme)
        page.goto(options.page.resolve().as_uri())
        page.select_option("#sort", options.sort)
        page.locator(".row").nth(options.row).click()
        page.screenshot(path=options.out, full_page=True)
        browser.close()
    print(options.out)


if __name__ == "__main__":
    main()
