"""The programs that draw curves: what each holds of a job is read back from it, so that nothing is told twice."""

from __future__ import annotations

import importlib
import io
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from shlex import quote
from types import ModuleType
from typing import Any, Protocol

from runner.discretion import hide
from runner.errors import RunnerError
from runner.track.curves import EVALUATION, TRAIN, Point, Reached, reached_by
from runner.track.wandb_file import kept_rows
from wake2vec.contract.tables import TrackerName

PROJECT = "wake2vec"
MLFLOW_AT_ONCE = 1000  # metrics; more are refused


class Tracker(Protocol):
    look_at: str  # what a person types, or where to go

    def reached(self) -> Reached:
        """How far it knows the job."""

    def add(self, points: Sequence[Point]) -> None:
        """Take over rows, in order, and keep them before it returns."""

    def close(self) -> None: ...


def open_tracker(name: TrackerName, job: str, into: Path) -> Tracker:
    """`into`: where those that keep files keep them. Raises RunnerError for a package that is not here."""
    return TRACKERS[name](job, into)


def _library(name: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RunnerError(
            f"{package} is not installed here: pip install {package}", command=f"pip install {package}"
        ) from error


class TensorBoard:
    """Event files in a folder for each job."""

    def __init__(self, job: str, into: Path) -> None:
        writer = _library("tensorboard.summary.writer.event_file_writer", "tensorboard")
        self._proto = _library("tensorboard.compat.proto.event_pb2", "tensorboard")
        self._loader = _library("tensorboard.backend.event_processing.event_file_loader", "tensorboard")
        self.look_at = f"tensorboard --logdir {quote(str(into / 'tensorboard'))}"
        self._folder = into / "tensorboard" / job
        self._reached = self._read()
        self._writer = writer.EventFileWriter(str(self._folder))

    def _read(self) -> Reached:
        last: dict[str, int] = {}
        for path in sorted(self._folder.glob("events.out.tfevents.*")):
            # ends at a record that a killed writer left torn
            for event in self._loader.LegacyEventFileLoader(str(path)).Load():
                last |= {value.tag: max(event.step, last.get(value.tag, -1)) for value in event.summary.value}
        return reached_by(last)

    def reached(self) -> Reached:
        return self._reached

    def add(self, points: Sequence[Point]) -> None:
        for point in points:
            event = self._proto.Event(wall_time=time.time(), step=point.step)
            for name, value in point.figures.items():
                event.summary.value.add(tag=name, simple_value=value)
            self._writer.add_event(event)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Trackio:
    """Its own database on this machine (TRACKIO_DIR), and a Space where TRACKIO_SPACE_ID names one."""

    def __init__(self, job: str, into: Path) -> None:
        self._library = _library("trackio", "trackio")
        self._storage = _library("trackio.sqlite_storage", "trackio").SQLiteStorage
        self._job, space = job, os.environ.get("TRACKIO_SPACE_ID")
        self.look_at = f"https://huggingface.co/spaces/{space}" if space else f"trackio show --project {PROJECT}"
        with redirect_stdout(io.StringIO()):  # what it would have people type is for scripts
            self._run = self._library.init(project=PROJECT, name=job, resume="allow", embed=False, space_id=space)

    def reached(self) -> Reached:
        last: dict[str, int] = {}
        for row in self._storage.get_logs(PROJECT, self._job):
            last |= {name: max(row["step"], last.get(name, -1)) for name in row}
        return reached_by(last)

    def add(self, points: Sequence[Point]) -> None:
        for point in points:
            self._run.log(dict(point.figures), step=point.step)

    def close(self) -> None:
        with redirect_stdout(io.StringIO()):
            self._run.finish()


class Mlflow:
    """Where MLFLOW_TRACKING_URI says, else a database beside the files of the others."""

    def __init__(self, job: str, into: Path) -> None:
        library = _library("mlflow", "mlflow")
        self._entity = _library("mlflow.entities", "mlflow").Metric
        for name in ("mlflow", "alembic"):  # of a new database each table would be told
            logging.getLogger(name).setLevel(logging.WARNING)
        into.mkdir(parents=True, exist_ok=True)
        place = library.get_tracking_uri() if library.is_tracking_uri_set() else f"sqlite:///{into / 'mlflow.db'}"
        self.look_at = f"mlflow server --backend-store-uri {place}" if place.startswith("sqlite") else hide(place)
        self._client = library.MlflowClient(place)
        known = self._client.get_experiment_by_name(PROJECT)
        experiment = known.experiment_id if known else self._client.create_experiment(PROJECT)
        runs = self._client.search_runs([experiment], f"attributes.run_name = '{job}'")
        self._run = (runs[0] if runs else self._client.create_run(experiment, run_name=job)).info.run_id

    def reached(self) -> Reached:
        names = self._client.get_run(self._run).data.metrics
        history = {name: self._client.get_metric_history(self._run, name) for name in names}
        return reached_by({name: max(one.step for one in told) for name, told in history.items()})

    def add(self, points: Sequence[Point]) -> None:
        """A batch is kept whole or not at all."""
        size = MLFLOW_AT_ONCE // max(len(point.figures) for point in points)
        for first in range(0, len(points), size):
            at, batch = int(time.time() * 1000), points[first : first + size]
            metrics = [self._entity(name, value, at, one.step) for one in batch for name, value in one.figures.items()]
            self._client.log_batch(self._run, metrics)

    def close(self) -> None:
        """It stays open: a job may go on."""


class Wandb:
    """Its own service, or with WANDB_MODE=offline files for `wandb sync`. The run's id is the job's name.

    Its own count gives every row one place, two to a step, behind which it takes nothing that it holds already.
    """

    def __init__(self, job: str, into: Path) -> None:
        library = _library("wandb", "wandb")
        settings = library.setup(library.Settings(silent=True)).settings
        if settings.mode == "disabled":
            raise RunnerError("wandb is told nothing: WANDB_MODE is disabled")
        if settings.mode == "online" and not library.login(prompt=False):
            raise RunnerError("wandb: has no key here: `wandb login`, or set WANDB_API_KEY", command="wandb login")
        into.mkdir(parents=True, exist_ok=True)
        # nothing of this machine: neither what `start` says nor its figures, packages and repository
        silent = library.Settings(
            console="off", save_code=False, disable_git=True, x_disable_stats=True, x_disable_meta=True,
            x_disable_machine_info=True, x_save_requirements=False, program="",
        )  # fmt: skip
        self._run = library.init(
            project=PROJECT, id=job, name=job, resume="allow", dir=str(into), reinit="create_new", settings=silent
        )
        self.look_at = f"cd {into} && wandb sync" if self._run.offline else str(self._run.url)
        for kind in (TRAIN, EVALUATION):
            self._run.define_metric(f"{kind}/*", step_metric=f"{kind}/step")
        kept = [kept_rows(path) for path in (into / "wandb").glob(f"*run-*-{job}/run-{job}.wandb")]
        self._rows = max(kept, default=0) if self._run.offline else self._run.starting_step

    def reached(self) -> Reached:
        """Of two rows to a step the first is training's."""
        return Reached(train=(self._rows - 1) // 2, evaluation=self._rows // 2 - 1)

    def add(self, points: Sequence[Point]) -> None:
        for point in points:
            kind = next(iter(point.figures)).partition("/")[0]
            row = 2 * point.step + (kind == EVALUATION)
            self._run.log({**point.figures, f"{kind}/step": point.step}, step=row, commit=True)

    def close(self) -> None:
        self._run.finish()


TRACKERS: Mapping[TrackerName, Callable[[str, Path], Any]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "mlflow": Mlflow,
    "wandb": Wandb,
}
