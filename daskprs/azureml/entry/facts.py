"""What an entry process has been told of its run, as environment variables and as a file."""

from __future__ import annotations

from typing import Any

from daskprs.entry_process.entry_script_api import read_facts, read_variable

__all__ = [
    "metrics_file",
    "models",
    "outputs",
    "run_facts",
    "side_inputs",
    "tables",
    "workspace_facts",
]


def models() -> dict[str, list[dict[str, Any]]]:
    """Return name -> versions of the models of the step, each with its `version` and `path`."""
    found: dict[str, list[dict[str, Any]]] = read_variable("DASKPRS_MODELS", {})
    return found


def workspace_facts() -> dict[str, Any]:
    """Return name, subscription_id and resource_group; stand-ins where there is no workspace.

    Of a workspace, also what opens it.
    """
    nowhere = {
        "name": "daskprs",
        "subscription_id": "00000000-0000-0000-0000-000000000000",
        "resource_group": "daskprs",
    }
    return {**nowhere, **read_variable("DASKPRS_WORKSPACE", {})}


def run_facts() -> dict[str, Any]:
    """Return id, experiment and parent; a run that is of no pipeline is its own parent."""
    run_id = read_facts().get("run_id") or "daskprs"
    facts = {"id": run_id, "experiment": "daskprs", **read_variable("DASKPRS_RUN", {})}
    facts["parent"] = facts.get("parent") or facts["id"]
    return facts


def side_inputs() -> dict[str, str]:
    """Return name -> local path."""
    found: dict[str, str] = read_facts().get("side_inputs", {})
    return found


def metrics_file() -> str:
    """Return the file for what the script logs with its run, or "" outside of a run."""
    return str(read_facts().get("metrics_file", ""))


def tables() -> dict[str, dict[str, Any]]:
    """Return name -> description of the tables among the inputs of a script step."""
    found: dict[str, dict[str, Any]] = read_facts().get("tables", {})
    return found


def outputs() -> dict[str, str]:
    """Return name -> local path of the outputs of a script step."""
    found: dict[str, str] = read_facts().get("outputs", {})
    return found
