"""Keep the libraries' progress bars and advice out of what a person reads."""

from __future__ import annotations


def quiet_libraries() -> None:
    """Errors are still told."""
    import logging

    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
