"""Try one order for real, and once more, so that what it saved is loaded: `python -m wake2vec.trial RUN_DIR`."""

from __future__ import annotations

import sys

from wake2vec.__main__ import main as attempt


def main(arguments: list[str]) -> int:
    return attempt(arguments) or attempt(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
