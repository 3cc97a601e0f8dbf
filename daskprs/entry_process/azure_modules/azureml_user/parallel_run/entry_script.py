"""``from azureml_user.parallel_run.entry_script import EntryScript``."""

from daskprs.entry_process.entry_script_api import EntryScript

__all__ = ["EntryScript"]
