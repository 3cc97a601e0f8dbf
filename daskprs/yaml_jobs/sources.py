"""Where the inputs of jobs are, also those that other jobs write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from daskprs.pipelines.base import Step
from daskprs.yaml_jobs.expressions import Reference
from daskprs.yaml_jobs.jobs import JobSpec
from daskprs.yaml_jobs.values import DataInput, Literal

__all__ = ["Sources"]


@dataclass
class Sources:
    """The jobs of a file, and the steps that they become.

    Attributes
    ----------
    specs, steps : mapping
        By the name of the job.
    """

    specs: Mapping[str, JobSpec]
    steps: dict[str, Step] = field(default_factory=dict)

    def locate(self, given: DataInput) -> str:
        """Return the path or url of an input."""
        if given.produced is None:
            return given.url
        job, output = given.produced
        return self.specs[job].outputs[output].path

    def publish(self, spec: JobSpec) -> None:
        """Show the rows of completed jobs that this one reads in their outputs."""
        for name in sorted(spec.upstream()):
            publish = getattr(self.steps[name], "publish", None)
            if publish is not None:
                publish()

    def text(self, spec: JobSpec, reference: Reference) -> str:
        """Return what an expression stands for in a job."""
        [name] = reference.names
        if reference.scope == "outputs":
            return spec.outputs[name].path
        given = spec.inputs[name]
        return given.text if isinstance(given, Literal) else self.locate(given)
