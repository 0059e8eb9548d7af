"""A network that is down is told from a model that is wrong, through whatever wraps it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from wake2vec.contract.errors import ModelError
from wake2vec.model.hub import unreachable


def wrapped(cause: BaseException) -> Exception:
    try:
        try:
            raise cause
        except BaseException as error:
            raise OSError("We couldn't connect to the hub") from error
    except OSError as error:
        outer = ModelError("a/b", "cannot be loaded")
        outer.__cause__ = error
        return outer


def of(module: str, name: str) -> Exception:
    return type(name, (Exception,), {"__module__": module})("x")


def answered(status: int) -> Exception:
    error = Exception("HTTP")
    error.response = SimpleNamespace(status_code=status)  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    "cause",
    [
        ConnectionResetError(), TimeoutError(), of("requests.exceptions", "ReadTimeout"),
        of("httpx", "ConnectError"), of("urllib3.exceptions", "MaxRetryTimeoutError"),
        of("socket", "gaierror"), answered(429), answered(503),
    ],
)  # fmt: skip
def test_a_hub_that_is_away_or_busy_is_waited_for(cause: Exception) -> None:
    assert unreachable(wrapped(cause)).startswith("the hub ")


@pytest.mark.parametrize(
    "cause",
    [answered(401), answered(404), ValueError("torn file"), of("huggingface_hub.errors", "OfflineModeIsEnabled")],
)
def test_what_waiting_does_not_mend_is_not_called_a_network(cause: Exception) -> None:
    assert unreachable(wrapped(cause)) == ""
