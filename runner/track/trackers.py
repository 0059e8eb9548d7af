"""The programs that draw curves: what each holds of a job is read back from it, so that nothing is told twice."""

from __future__ import annotations

import importlib
import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from runner.errors import RunnerError
from runner.track.curves import Point, Reached, reached_by
from wake2vec.contract.tables import TrackerName

PROJECT = "wake2vec"


class Tracker(Protocol):
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
        self._job = job
        space = os.environ.get("TRACKIO_SPACE_ID")
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
    """Where MLFLOW_TRACKING_URI says."""

    def __init__(self, job: str, into: Path) -> None:
        library = _library("mlflow", "mlflow")
        self._entity = _library("mlflow.entities", "mlflow").Metric
        self._client = library.MlflowClient()
        known = self._client.get_experiment_by_name(PROJECT)
        experiment = known.experiment_id if known else self._client.create_experiment(PROJECT)
        runs = self._client.search_runs([experiment], f"attributes.run_name = '{job}'")
        self._run = (runs[0] if runs else self._client.create_run(experiment, run_name=job)).info.run_id

    def reached(self) -> Reached:
        names = self._client.get_run(self._run).data.metrics
        history = {name: self._client.get_metric_history(self._run, name) for name in names}
        return reached_by({name: max(one.step for one in told) for name, told in history.items()})

    def add(self, points: Sequence[Point]) -> None:
        for point in points:
            at = int(time.time() * 1000)
            metrics = [self._entity(name, value, at, point.step) for name, value in point.figures.items()]
            self._client.log_batch(self._run, metrics)

    def close(self) -> None:
        """It stays open: a job may go on."""


class Wandb:
    """Its own service; the run's id is the job's name, so that a later session finds it."""

    def __init__(self, job: str, into: Path) -> None:
        library = _library("wandb", "wandb")
        into.mkdir(parents=True, exist_ok=True)
        self._run = library.init(project=PROJECT, id=job, name=job, resume="allow", dir=str(into))
        for kind in ("train", "eval"):
            self._run.define_metric(f"{kind}/*", step_metric=f"{kind}/step")

    def reached(self) -> Reached:
        told = {name: self._run.summary.get(f"{name}/step", -1) for name in ("train", "eval")}
        return reached_by({f"{name}/step": int(step) for name, step in told.items()})

    def add(self, points: Sequence[Point]) -> None:
        for point in points:
            kinds = {name.partition("/")[0] for name in point.figures}
            self._run.log({**point.figures, **{f"{kind}/step": point.step for kind in kinds}})

    def close(self) -> None:
        self._run.finish()


TRACKERS: Mapping[TrackerName, Callable[[str, Path], Any]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "mlflow": Mlflow,
    "wandb": Wandb,
}
