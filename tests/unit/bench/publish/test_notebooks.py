"""What a notebook carries of the program: the same code on the same lines, in letters that any notebook keeps."""

from __future__ import annotations

import ast
import bz2
import json

import pytest

from bench.publish.notebooks import DIGITS, INSTALL, ROOT, SAYS, bare, group

FILES = [path for folder in ("runner", "wake2vec") for path in sorted((ROOT / folder).rglob("*.py"))]


def without_docstrings(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node):
            node.body = node.body[1:]
    return ast.dump(tree, include_attributes=True)  # with the places of all that is left


def test_every_file_of_the_program_is_the_same_code_on_the_same_lines() -> None:
    for path in FILES:
        text = path.read_text("utf-8")
        name = str(path.relative_to(ROOT))
        found = bare(name, text).decode()

        compile(found, name, "exec")
        assert without_docstrings(found) == without_docstrings(text), path
        if name.startswith(SAYS):
            assert ast.dump(ast.parse(found)) == ast.dump(ast.parse(text)), path


def test_docstrings_and_comments_of_any_letters_go_and_strings_stay() -> None:
    text = 'def f(x):  # naïve\n    """Naïve —\n    two lines."""\n    y = "# not a comment"  # one\n    return y\n'

    assert bare("runner/x.py", text).decode() == 'def f(x):\n\n\n    y = "# not a comment"\n    return y\n'
    assert '"""Naïve' in bare("runner/cli_x.py", text).decode()


@pytest.mark.parametrize("size", [0, 1, 21, 22, 23, 1000])
def test_the_cell_reads_what_was_written(size: int) -> None:
    body = bz2.compress(bytes(value % 251 for value in range(size)))
    text = "".join(group(body[start : start + 22]) for start in range(0, len(body), 22))
    cell = INSTALL.format(parts="", record="", name="", no_line="").partition("PARTS")[0]
    space: dict[str, object] = {}
    exec(cell, space)

    read = space["read"](text)  # type: ignore[operator]

    assert bz2.BZ2Decompressor().decompress(read) == bytes(value % 251 for value in range(size))
    assert json.loads(f'"{text}"') == text == eval(f'"{text}"')
    assert set(text) <= set(DIGITS)
