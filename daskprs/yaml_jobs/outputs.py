"""Where the outputs of jobs are: one folder for each job and output."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from daskprs.listing import is_local
from daskprs.yaml_jobs.checking import nearest
from daskprs.yaml_jobs.documents import Section
from daskprs.yaml_jobs.expressions import whole
from daskprs.yaml_jobs.values import Output

__all__ = ["find_outputs", "pipeline_outputs"]

_TAKEN = ("logs", "inputs")


def find_outputs(
    use: Section, body: Section, folder: Path, root: Path, of_pipeline: dict[str, Output]
) -> dict[str, Output]:
    """Find the outputs of a job.

    Parameters
    ----------
    use, body : Section
        Where the job is used, and its component; the same where it has none.
    folder : Path
        Of the job.
    root : Path
        Of all jobs.
    of_pipeline : mapping
        Outputs of the pipeline, which a job may write.

    Raises
    ------
    ConfigError
    """
    declared, given = body.names("outputs"), use.names("outputs")
    for name in given:
        if name not in declared:
            section = use.child("outputs", name)
            raise section.error(f"the component has no such output; {nearest(name, declared)}")
    found = {}
    for name in declared:
        section = (use if name in given else body).child("outputs", name)
        kind = body.child("outputs", name).get("type") if body is not use else None
        if name in _TAKEN:
            raise section.error(f"{name!r} is a folder of the job itself: take another name.")
        reference = whole(section.content)
        if reference is None:
            found[name] = _placed(section, name, kind, folder / name, root)
            continue
        target = of_pipeline.get(reference.names[0]) if reference.names else None
        if reference.scope != "parent.outputs" or target is None:
            raise section.error(
                f"{reference.text} is no output of the pipeline; "
                f"{nearest((reference.names or ('',))[0], of_pipeline)}"
            )
        found[name] = target
    return found


def pipeline_outputs(section: Section, root: Path) -> dict[str, Output]:
    """Find the outputs of the pipeline itself."""
    return {
        name: _placed(section.child("outputs", name), name, None, root / name, root)
        for name in section.names("outputs")
    }


def _placed(section: Section, name: str, kind: str | None, folder: Path, root: Path) -> Output:
    if isinstance(section.content, str):
        raise section.error(
            f"{section.content!r} is not accepted: it must be a mapping with type and path, or "
            "${{parent.outputs.NAME}}."
        )
    kind = section.get("type", kind or "uri_folder")
    path, is_own, url = section.get("path"), True, None
    if path is not None and not path.startswith("azureml:"):
        if is_local(path):
            place = root / Path(path.removeprefix("file://")).expanduser()
            folder, is_own = (place.parent if kind == "uri_file" else place), False
        elif "${{" in path:
            raise section.error("an expression in a url is not filled in: write its value.", "path")
        else:
            url = path
    file_name = None
    if kind == "uri_file":
        file_name = (PurePosixPath(path).name if path else "") or name
    is_direct = url is not None and section.get("mode") == "direct"
    return Output(name, kind, folder, file_name, is_own, url, is_direct)
