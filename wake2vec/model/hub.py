"""Whether an error means that a model's hub could not be reached just now, whatever library raised it. Imports none."""

from __future__ import annotations

from collections.abc import Iterator

BUSY = (408, 425, 429, 500, 502, 503, 504)
NETWORK = ("requests", "httpx", "httpcore", "urllib3", "aiohttp", "ssl", "socket")
WORDS = ("connect", "timeout", "timed", "protocol", "network", "proxy", "ssl", "dns", "gaierror", "remotedisconnected")
OFFLINE = "OfflineModeIsEnabled"  # a person's own wish: waiting does not end it


def unreachable(error: BaseException) -> str:
    """What stood in the way, in a few words; empty where it was not the network or a busy server."""
    chain = list(_chain(error))
    if any(type(one).__name__ == OFFLINE for one in chain):
        return ""
    return next((said for one in chain if (said := _trouble(one))), "")


def _trouble(error: BaseException) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return f"the hub answered {status}" if status in BUSY else ""
    kind = type(error)
    of_network = kind.__module__.partition(".")[0] in NETWORK and any(word in kind.__name__.lower() for word in WORDS)
    if isinstance(error, ConnectionError | TimeoutError) or of_network:
        return f"the hub cannot be reached ({kind.__name__})"
    return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__
