"""``from azureml.telemetry import set_diagnostics_collection``."""

from daskprs.azureml.telemetry import INSTRUMENTATION_KEY, set_diagnostics_collection

__all__ = ["INSTRUMENTATION_KEY", "set_diagnostics_collection"]
__path__: list[str] = []  # imports from it are asked for what it does not have
