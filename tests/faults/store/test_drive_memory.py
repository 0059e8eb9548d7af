"""A transfer takes the same memory whatever the file's size."""

from __future__ import annotations

import sys

import pytest

from tests.faults.protocols.store import MEMORY_MIB, budget, memory


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_transfer_needs_no_more_memory_than_a_few_chunks() -> None:
    figures = memory(budget(600, least=128))

    assert figures["peak_rss_mib"] <= MEMORY_MIB, figures
