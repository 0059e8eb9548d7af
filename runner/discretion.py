"""Passwords in addresses, left out of whatever is shown, logged or kept. Pure."""

from __future__ import annotations

import re
import urllib.parse

_USER = re.compile(r"://([^\s:@/]*:\S*)@")  # up to the last @: a password may hold some, and a slash
_QUERY = re.compile(r"(://[^\s?]*)\?[^\s'\"]+")  # signatures and tokens travel there
LEAST = 4  # a shorter password would be found in any text


def hide(text: str, address: str = "") -> str:
    """The text without passwords: those that stand in URLs, and those of `address` wherever they stand."""
    for secret in secrets_of(address):
        text = text.replace(secret, "***")
    return _QUERY.sub(r"\1?***", _USER.sub("://***@", text))


def secrets_of(address: str) -> list[str]:
    """What must not be seen of an address, the longest first: a library may show it cut, or decoded."""
    found = {match[1] for match in _USER.finditer(address)}
    passwords = {user.partition(":")[2] for user in found}
    query = urllib.parse.parse_qsl(address.partition("?")[2]) if "://" in address else []
    found |= passwords | {urllib.parse.unquote(one) for one in passwords} | {value for _, value in query}
    return sorted((one for one in found if len(one) >= LEAST), key=len, reverse=True)
