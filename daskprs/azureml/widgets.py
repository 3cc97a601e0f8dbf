"""``azureml.widgets.RunDetails``: how far a run is."""

from __future__ import annotations

import html
import sys
from typing import Any

from daskprs.azureml.experiments import PipelineRun
from daskprs.azureml.partial import Partial

__all__ = ["RunDetails"]


class RunDetails(Partial):
    """Shows how far a run is, once; ``wait_for_completion(show_output=True)`` goes on showing it.

    Parameters
    ----------
    run_instance : PipelineRun
    """

    def __init__(self, run_instance: PipelineRun) -> None:
        self._run = run_instance

    def show(self, render_lib: object = None, widget_settings: object = None) -> None:
        """Show it in the cell of a notebook, or on stderr."""
        lines = self._lines()
        shell: Any = sys.modules.get("IPython")
        instance = shell.get_ipython() if shell is not None else None
        if instance is not None and hasattr(instance, "kernel"):
            from IPython.display import HTML, display

            display(HTML("<br>".join(html.escape(line) for line in lines)))
            return
        sys.stderr.write("\n".join(lines) + "\n")

    def _lines(self) -> list[str]:
        run = self._run
        head = f"{run.experiment.name}: {run.status} (run {run.id})"
        return [head, *(f"  {step.name}: {step.status}" for step in run.get_steps())]
