"""JobFile: a job file with its components, all names resolved."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from daskprs.exceptions import ConfigError
from daskprs.yaml_jobs.checking import check, nearest
from daskprs.yaml_jobs.documents import Document, Section
from daskprs.yaml_jobs.expressions import Reference, references, substitute, whole
from daskprs.yaml_jobs.outputs import find_outputs, pipeline_outputs
from daskprs.yaml_jobs.values import (
    DATA,
    DataInput,
    Given,
    Literal,
    Output,
    data_path,
    literal,
    not_of_azure,
)

__all__ = ["JobFile", "JobSpec"]

KINDS = ("pipeline", "parallel", "command")
_ELSEWHERE = ("sweep", "automl", "spark", "import", "data_transfer", "finetuning")


@dataclass(frozen=True)
class JobSpec:
    """A parallel or a command job.

    Attributes
    ----------
    kind : {"parallel", "command"}
    use, body : Section
        Where the job is used, and its component; the same where it has none.
    inputs : dict
        Those that are given.
    missing : frozenset
        Optional inputs that are not.
    folder : Path
        Where it writes.
    """

    name: str
    kind: str
    use: Section
    body: Section
    inputs: dict[str, Given]
    missing: frozenset[str]
    outputs: dict[str, Output]
    folder: Path
    is_fresh: bool = False

    def find(self, name: str) -> Section:
        """Return the section that has a key: the use of the job overrides its component."""
        return self.use if self.use.get(name) is not None else self.body

    def get(self, name: str, default: Any = None) -> Any:
        return self.find(name).get(name, default)

    def upstream(self) -> set[str]:
        """Tell the jobs whose outputs this one reads."""
        data = [given for given in self.inputs.values() if isinstance(given, DataInput)]
        return {given.produced[0] for given in data if given.produced is not None}

    def check_text(self, section: Section, text: str) -> None:
        """Check that the expressions in a text name inputs and outputs of the job.

        Raises
        ------
        ConfigError
        """
        try:
            found = references(text)
        except ValueError as error:
            raise section.error(f"{error}: write it as ${{{{inputs.NAME}}}}.") from None
        known = {"inputs": [*self.inputs, *self.missing], "outputs": list(self.outputs)}
        for reference in found:
            if reference.scope not in known:
                raise section.error(
                    f"{reference.text} is not accepted here: write ${{{{inputs.NAME}}}} or "
                    "${{outputs.NAME}}."
                )
            [name] = reference.names
            if name not in known[reference.scope]:
                raise section.error(
                    f"{reference.text}: the job has no such {reference.scope.rstrip('s')}; "
                    f"{nearest(name, known[reference.scope])}"
                )


@dataclass(frozen=True)
class JobFile:
    """A job file, checked.

    Attributes
    ----------
    jobs : dict
        By name; one, where it is no pipeline.
    folder : Path
        Where all outputs are.
    goes_on : bool
        Also run jobs that do not need those that have failed.
    """

    document: Document
    name: str
    jobs: dict[str, JobSpec]
    folder: Path
    goes_on: bool = False

    @classmethod
    def load(
        cls, path: str | Path, output: str | Path | None = None, changes: Sequence[str] = ()
    ) -> JobFile:
        """Read a job file and its components.

        Parameters
        ----------
        output : str or Path, optional
            Where all outputs are to be; default: beside the job file, ``<its name>.outputs``.
        changes : sequence of str
            Values to set, such as ``inputs.x.path=data``.

        Raises
        ------
        ConfigError
            Names file, line and key.
        """
        path = Path(path).expanduser().absolute()
        folder = path.with_name(f"{path.stem}.outputs")
        if output is not None:
            if "://" in str(output):
                raise ConfigError.of("output", str(output), "a folder of this machine")
            folder = Path(output).expanduser().absolute()
        document = Document.load(path)
        if not isinstance(document.content, dict):
            raise ConfigError(f"{path.name}: it is no job: it must be a mapping with the key type.")
        document = document.with_changes(changes)
        section = document.section
        kind = _kind(section)
        check(section, kind)
        name = str(section.get("name", path.stem))
        if kind != "pipeline":
            word = re.sub("[^A-Za-z0-9_-]", "-", name).lstrip("-_0123456789") or "job"
            spec = _Reader(folder, {}, {}).job(word, section)
            return cls(document, name, _bound({word: spec}), folder)
        settings = section.child("settings") if section.get("settings") else None
        reader = _Reader(folder, {}, pipeline_outputs(section, folder))
        for inner in section.names("inputs"):
            reader.given[inner] = reader.value(section.child("inputs", inner), {})
        reader.is_fresh = bool(settings and settings.get("force_rerun", False))
        jobs = {n: reader.job(n, section.child("jobs", n)) for n in section.get("jobs")}
        both = sorted(set(jobs) & set(reader.outputs))
        if both:
            raise section.error("a job has the same name: take another one.", "outputs", both[0])
        _check_writers(section, jobs, reader.outputs)
        goes_on = bool(settings and settings.get("continue_on_step_failure", False))
        return cls(document, name, _bound(jobs), folder, goes_on)


class _Reader:
    """Reads jobs.

    Parameters
    ----------
    given, outputs : mapping
        Inputs and outputs of the pipeline.
    """

    def __init__(self, folder: Path, given: dict[str, Given], outputs: dict[str, Output]) -> None:
        self.folder, self.given, self.outputs = folder, given, outputs
        self.is_fresh = False

    def job(self, name: str, use: Section) -> JobSpec:
        use = self._settled(use)
        body = _component(use)
        kind = _kind(use, body)
        if kind == "pipeline":
            raise use.error("a pipeline in a pipeline is not supported: put its jobs here.")
        check(use, kind)
        if body is not use:
            check(body, kind)
        inputs, missing = self.inputs(use, body)
        outputs = find_outputs(use, body, self.folder / name, self.folder, self.outputs)
        is_fresh = self.is_fresh or body.get("is_deterministic", True) is False
        folder = self.folder / name
        return JobSpec(name, kind, use, body, inputs, missing, outputs, folder, is_fresh)

    def _settled(self, use: Section) -> Section:
        """Put values of the pipeline in the place of expressions that are settings of a job."""
        if not isinstance(use.content, dict):
            return use
        document = replace(use.document, content=copy.deepcopy(use.document.content))
        use = Section(document, use.at)
        for name in use.content:
            if name not in ("inputs", "outputs"):
                use.content[name] = self._filled(use.child(name))
        return use

    def _filled(self, section: Section) -> Any:
        content = section.content
        if isinstance(content, dict):
            return {name: self._filled(section.child(name)) for name in content}
        reference = whole(content)
        if reference is None or reference.scope != "parent.inputs":
            return content
        given = self._referred(section, reference, None)
        if isinstance(given, DataInput):
            raise section.error(f"{reference.text} is data, and no value for it.")
        return given.text

    def inputs(self, use: Section, body: Section) -> tuple[dict[str, Given], frozenset[str]]:
        declared, given = body.names("inputs"), use.names("inputs")
        for name in given:
            if name not in declared:
                raise use.error(
                    f"the component has no such input; {nearest(name, declared)}", "inputs", name
                )
        found: dict[str, Given] = {}
        missing = set()
        for name in declared:
            told = body.child("inputs", name)
            facts = told.content if body is not use and isinstance(told.content, dict) else {}
            if name in given:
                found[name] = self.value(use.child("inputs", name), facts)
            elif facts.get("default") is not None:
                found[name] = literal(told.child("default"), facts)
            elif facts.get("optional"):
                missing.add(name)
            else:
                raise use.error(f"the input {name!r} is not given.", "inputs")
        return found, frozenset(missing)

    def value(self, section: Section, declared: dict[str, Any]) -> Given:
        """Resolve an input."""
        content, kind = section.content, declared.get("type")
        if isinstance(content, dict):
            return self._mapping(section, content, kind)
        if not isinstance(content, str):
            return literal(section, declared)
        reference = whole(content)
        if reference is not None:
            return self._referred(section, reference, kind)
        text = self._substituted(section, content)
        if kind in DATA:
            return DataInput(kind, section, data_path(section, text))
        return literal(section, declared) if text == content else Literal(text)

    def _mapping(self, section: Section, content: dict[str, Any], declared: str | None) -> Given:
        kind = content.get("type")
        if content.get("path") is None:
            if content.get("default") is None:
                raise section.error("the input has no value: give its path, or a default.")
            return literal(section.child("default"), content)
        if kind is not None and kind not in DATA:
            raise section.error(f"an input of type {kind} has no path.", "path")
        path = section.child("path")
        reference = whole(content["path"])
        if reference is not None:
            return self._referred(path, reference, kind or declared)
        kind = kind or declared or "uri_folder"
        url = data_path(path, self._substituted(path, content["path"]))
        return DataInput(kind, path, url, mode=content.get("mode"))

    def _referred(self, section: Section, reference: Reference, kind: str | None) -> Given:
        kind = kind if kind in DATA else None
        if reference.scope == "parent.jobs":
            job, output = reference.names
            return DataInput(kind, section, produced=(job, output))
        if reference.scope != "parent.inputs":
            raise section.error(
                f"{reference.text} is not accepted here: write ${{{{parent.inputs.NAME}}}} or "
                "${{parent.jobs.JOB.outputs.NAME}}."
            )
        [name] = reference.names
        if name not in self.given:
            hint = nearest(name, self.given)
            raise section.error(f"{reference.text}: the pipeline has no such input; {hint}")
        given = self.given[name]
        return given.with_type(kind) if isinstance(given, DataInput) else given

    def _substituted(self, section: Section, text: str) -> str:
        def find(reference: Reference) -> str:
            given = self._referred(section, reference, None)
            if isinstance(given, DataInput):
                raise section.error(f"{reference.text} is data: it must stand alone.")
            return given.text

        try:
            references(text)
        except ValueError as error:
            raise section.error(f"{error}: write it as ${{{{parent.inputs.NAME}}}}.") from None
        return substitute(text, find)


def _kind(use: Section, body: Section | None = None) -> str:
    body = body or use
    kind = use.get("type") or body.get("type")
    if kind is None:
        for key, meant in (("jobs", "pipeline"), ("task", "parallel"), ("command", "command")):
            if body.get(key) is not None:
                return meant
        raise use.error("the key 'type' is missing: it says parallel, command or pipeline.")
    if kind in _ELSEWHERE:
        raise use.error(f"jobs of type {kind!r} are not run here: only those of {KINDS}.", "type")
    if kind not in KINDS:
        raise use.error(f"{kind!r} is no type of a job; {nearest(kind, KINDS)}", "type")
    return str(kind)


def _component(use: Section) -> Section:
    name = use.get("component")
    if name is None:
        return use
    where = use.child("component")
    if not isinstance(name, str):
        raise where.error("it must be the path of a component's file, such as ./prepare.yml.")
    if name.startswith("azureml:"):
        raise not_of_azure(where, name)
    path = use.folder / name.removeprefix("file:")
    if not path.is_file():
        raise where.error(f"{name!r} is not there: there is no {path}.")
    body = Document.load(path).section
    if not isinstance(body.content, dict):
        raise body.error("it is no component: it must be a mapping.")
    return body


def _check_writers(section: Section, jobs: dict[str, JobSpec], outputs: dict[str, Output]) -> None:
    for name, output in outputs.items():
        writers = [job.name for job in jobs.values() if output in job.outputs.values()]
        if len(writers) > 1:
            raise section.error(f"both {' and '.join(writers)} write it.", "outputs", name)


def _bound(jobs: dict[str, JobSpec]) -> dict[str, JobSpec]:
    """Give inputs from other jobs the type that the output has there."""
    for job in jobs.values():
        for name, given in job.inputs.items():
            if not isinstance(given, DataInput) or given.produced is None:
                continue
            other, output = given.produced
            if other not in jobs:
                raise given.section.error(f"there is no job {other!r}; {nearest(other, jobs)}")
            if output not in jobs[other].outputs:
                raise given.section.error(
                    f"the job {other!r} has no output {output!r}; "
                    f"{nearest(output, jobs[other].outputs)}"
                )
            job.inputs[name] = given.with_type(given.type or jobs[other].outputs[output].type)
    return jobs
