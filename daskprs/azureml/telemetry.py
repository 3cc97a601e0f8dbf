"""``azureml.telemetry``: nothing is sent to anybody."""

from __future__ import annotations

__all__ = ["INSTRUMENTATION_KEY", "set_diagnostics_collection"]

INSTRUMENTATION_KEY = ""


def set_diagnostics_collection(
    send_diagnostics: bool = True, verbosity: int | None = None, **kwargs: object
) -> None:
    """Send nothing, whatever is asked for."""
