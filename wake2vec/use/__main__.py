"""Use what was trained: `python -m wake2vec.use TOOL OPTIONS`, the options as JSON; one end for all tools."""

from __future__ import annotations

import io
import sys
from importlib import import_module

from wake2vec.contract.errors import Wake2vecError
from wake2vec.contract.options import TOOLS, Options


def use(options: Options) -> int:
    """The exit code; whatever a person can mend is said in a line."""
    try:
        import_module(options.tool).run(options)
    except Wake2vecError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename or options.tool}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):  # a Wake word that the locale lacks must not end a text
        sys.stdout.reconfigure(errors="replace")
    sys.exit(use(TOOLS[sys.argv[1]].model_validate_json(sys.argv[2])))
