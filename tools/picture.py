"""Takes the README's picture: the top of the demo's page in headless Chromium, written to docs/report.png."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from softknee import demo

TARGET = Path(__file__).parent.parent / "docs/report.png"
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]


def main() -> int:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        print("no Chromium found", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        demo.run(Path(folder), console=Console(quiet=True))
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            *QUIET,
            "--hide-scrollbars",
        ]
        command += [f"--user-data-dir={folder}/browser", "--window-size=1180,2010", f"--screenshot={TARGET}"]
        TARGET.parent.mkdir(exist_ok=True)
        subprocess.run([*command, (Path(folder) / "report.html").as_uri()], check=True, capture_output=True, timeout=60)
    print(f"{TARGET} ({TARGET.stat().st_size // 1024} KiB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
