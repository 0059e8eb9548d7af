"""What a text that should be a Drive token is instead, told without one byte of it. Pure."""

from __future__ import annotations

import base64
import json
import re

QUOTES = "'\"`‘’‚‛“”„‟«»"
BARE = "it is needed whole: the JSON text, or a path to the file, that `wake2vec-runner login` made"
# What stands at the beginning tells what was copied; the first that fits is said.
BEGINNINGS = (
    ("\ufeff", "begins with a byte-order mark; save or copy the JSON as plain UTF-8"),
    (f"[{QUOTES}]", "is wrapped in quotes, which %env and some forms keep; leave them out"),
    (r"(export\s|set\s|%env\s|WAKE2VEC_DRIVE_TOKEN)", "begins with the name of the variable; give what follows the ="),
    (r"1//", f"is a refresh token alone; {BARE}"),
    (r"ya29\.", f"is an access token, which lasts for an hour; {BARE}"),
    (r"GOCSPX-", f"is the secret of an OAuth client; {BARE}"),
    (r"[\w-]+\.apps\.googleusercontent\.com", f"is the id of an OAuth client; {BARE}"),
    (r"AIza", f"is an API key, which opens no Drive; {BARE}"),
    (r"4/", f"is the code of a sign-in, which works once; {BARE}"),
    (r"\[", "is a list; the token is one JSON object in { }"),
    (r"\{\s*[‘’']", "is written with single quotes, as Python prints it; JSON has double ones"),
    (r"\{\s*[“”]", "has typographic quotes; write straight ones"),
    (r"(---|\s*[\w-]+\s*:\s)", "looks like YAML; give it as JSON"),
    (r"\w+\s*=", "looks like INI or TOML; give it as JSON"),
)


def what_it_is(text: str) -> str:
    """The cause and what mends it, for a text that could not be read as a token's JSON."""
    if _is_base64_of_json(text):
        return "is encoded in base64; decode it (base64 -d) and give the JSON"
    for pattern, said in BEGINNINGS:
        if re.match(pattern, text):
            return said
    if text.startswith("{"):
        return _broken_json(text)
    return f"is neither the JSON of a token nor a file that can be read here; {BARE}"


def _broken_json(text: str) -> str:
    try:
        table = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"at character {error.pos + 1} of {len(text)}"
        if "control character" in error.msg:
            return f"has a line break inside a text, {where}; paste it as one line"
        return f"is not whole JSON, {where}; copy it again, from {{ to }}"
    except (RecursionError, ValueError):
        return "is no JSON that can be read; copy the token again"
    if "installed" in table or "web" in table:
        return "is the file of an OAuth client, which `wake2vec-runner login` turns into a token"
    if table.get("type") == "service_account":
        return "is a service account, which has no room in Drive; sign in as a person"
    return "lacks client_id, client_secret or refresh_token, each a text; copy all that `wake2vec-runner login` wrote"


def _is_base64_of_json(text: str) -> bool:
    try:
        return base64.b64decode(text[:8], validate=True).lstrip().startswith((b"{", b"\xef\xbb\xbf{"))
    except ValueError:
        return False
