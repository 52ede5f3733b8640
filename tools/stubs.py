"""Writes `src/softknee/functional.pyi` from the catalog. `--check` only says whether it is up to date (exit code 1)."""

import sys
from pathlib import Path

from softknee.functional import stub

TARGET = Path(__file__).parent.parent / "src/softknee/functional.pyi"


def main() -> int:
    text = stub()
    if "--check" in sys.argv:
        return int(not TARGET.exists() or TARGET.read_text() != text)
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
