"""Which earlier run of a step can be taken over, or gone on with."""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import TYPE_CHECKING, Any

from daskprs.datasets import FrameDataset
from daskprs.exceptions import DaskprsError
from daskprs.output_folder import Lock
from daskprs.pipelines.datastores import DataPath
from daskprs.pipelines.outputs import WrittenOutput
from daskprs.pipelines.records import Records
from daskprs.report import read_report

if TYPE_CHECKING:
    from daskprs.job import Job
    from daskprs.pipelines.workspace import Workspace

__all__ = ["EarlierSteps"]

_MOST_FILES = 100_000  # more are not listed a second time, to be compared


class EarlierSteps:
    """Where steps of earlier runs have written, by what decides their rows.

    Parameters
    ----------
    workspace : Workspace
    """

    def __init__(self, workspace: Workspace) -> None:
        self._records = Records(workspace.folder, "reuse")

    @staticmethod
    def _key(job: Job, place: DataPath, output: str) -> str:
        store = place.datastore.name if place.datastore is not None else ""
        text = json.dumps([job.name, job.identity(), store, output])
        return hashlib.sha256(text.encode()).hexdigest()[:40]

    def find(self, job: Job, place: DataPath, output: str) -> DataPath | None:
        """Return where a run of the same step has written, if this one may write there, too.

        A finished one is taken over if its input is what it was; an unfinished one that nobody
        is at work on goes on.
        """
        record = self._records.read(self._key(job, place, output))
        if record is None:
            return None
        earlier = DataPath(place.datastore, record["path"])
        folder = WrittenOutput(output, earlier).folder()
        try:
            report = read_report(folder)
            if report.status == "Running" or Lock(folder).is_held:
                return None
        except (DaskprsError, OSError):
            return None
        if report.status == "Completed" and record["input"] != input_state(job):
            return None
        return earlier

    def keep(self, job: Job, place: DataPath, output: str) -> None:
        """Remember where a run writes, and what its input is."""
        state = input_state(job)
        record = {"path": place.path, "input": state}
        self._records.replace(self._key(job, place, output), record)


def input_state(job: Job) -> str | None:
    """Hash what is known of the files of the input without reading them; None if too many."""
    digest = hashlib.sha256(json.dumps(job.facts()["files"], sort_keys=True).encode())
    left = _MOST_FILES
    for dataset in job.inputs:
        if isinstance(dataset, FrameDataset):
            continue
        for file in itertools.islice(dataset.files(), left + 1):
            facts: list[Any] = [file.path, file.size, file.version]
            digest.update(json.dumps(facts).encode())
            left -= 1
        if left < 0:
            return None
    return digest.hexdigest()
