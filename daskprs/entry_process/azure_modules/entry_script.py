"""``from entry_script import EntryScript``, as scripts of 2019 and 2020 have it."""

from daskprs.entry_process.entry_script_api import EntryScript

__all__ = ["EntryScript"]
