"""`repair` where nothing was ever lost, since nothing was ever brought."""

import pytest

from runner.commands.repair import run
from runner.settings import Settings


@pytest.mark.parametrize("yes", [False, True])
def test_a_home_that_never_brought_anything_misses_nothing_and_begins_no_store(tmp_path, capsys, yes):
    assert run(Settings(home=tmp_path / "home", store_url=f"dir:{tmp_path / 'store'}"), yes=yes) == 0

    assert capsys.readouterr().out == "nothing is missing\n"
    assert not (tmp_path / "store").exists()
