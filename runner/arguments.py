"""What every command takes, and how it becomes settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from runner.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Global:
    """Options that every command takes."""

    home: Path | None
    store: str | None

    @property
    def settings(self) -> Settings:
        from runner.settings import read_settings
        from runner.store.open import check_url

        settings = read_settings(self.home, self.store)
        check_url(settings.store_url)
        return settings


MOST = 10**12  # a number that no step, count or seed goes beyond
A_DAY_SECONDS, A_YEAR_HOURS = 86_400.0, 8_784.0

Name = Annotated[str, typer.Argument(metavar="JOB", help="Name of the job.")]
Names = Annotated[list[str], typer.Argument(metavar="JOB...", help="Names of jobs, as `status` shows them.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def settings_of(context: typer.Context) -> Settings:
    chosen: Global = context.obj
    return chosen.settings
