"""Program arguments: those of the script, and those that set the run."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daskprs.yaml_jobs.documents import Section

__all__ = ["FLAGS", "ProgramArguments"]

# Options that Azure ML takes for itself -> the setting here; None where there is nothing to set.
FLAGS: dict[str, str | None] = {
    "--error_threshold": "error_threshold",
    "--allowed_failed_count": "allowed_failed_count",
    "--allowed_failed_percent": "allowed_failed_percent",
    "--first_task_creation_timeout": "first_task_creation_timeout",
    "--progress_update_timeout": "progress_update_timeout",
    "--run_invocation_timeout": "run_invocation_timeout",
    "--run_max_try": "run_max_try",
    "--logging_level": "logging_level",
    "--process_count_per_node": "process_count_per_node",
    "--append_row_file_name": "append_row_file_name",
    "--task_overhead_timeout": None,
    "--resource_monitor_interval": None,
    "--copy_logs_to_parent": None,
    "--push_metrics_to_parent": None,
    "--metrics_name_prefix": None,
    "--save_mini_batch_results": None,
    "--mini_batch_results_out_directory": None,
}
_WHOLE = ("error_threshold", "allowed_failed_count", "run_max_try", "process_count_per_node")
_NUMBERS = ("allowed_failed_percent", "first_task_creation_timeout", "progress_update_timeout",
            "run_invocation_timeout")  # fmt: skip
_WORD = re.compile(r"--[A-Za-z][\w-]*")


@dataclass(frozen=True)
class ProgramArguments:
    """What stands in `program_arguments`.

    Attributes
    ----------
    words : list of str
        For the script.
    settings : dict
        Settings of the run.
    """

    words: list[str]
    settings: dict[str, Any]

    @classmethod
    def read(cls, section: Section, text: str, script_texts: str) -> ProgramArguments:
        """Take the text apart as a shell does.

        Parameters
        ----------
        script_texts : str
            The code: an option that it names is the script's, also.

        Raises
        ------
        ConfigError
            A word that is almost an option of Azure ML, and none of the script.
        """
        try:
            # An expression may have blanks inside.
            given = shlex.split(re.sub(r"\$\{\{\s*(.*?)\s*\}\}", r"${{\1}}", text))
        except ValueError as error:
            raise section.error(f"{text!r} is not accepted: {error}.") from None
        words, settings = list[str](), dict[str, Any]()
        at = 0
        while at < len(given):
            flag, mark, value = given[at].partition("=")
            flag = _meant(section, flag, script_texts)
            if flag not in FLAGS:
                words.append(given[at])
                at += 1
                continue
            taken = given[at : at + 1] if mark else given[at : at + 2]
            if len(taken) < 2 and not mark:
                raise section.error(f"the option {flag} has no value.")
            at += len(taken)
            if _names(script_texts, flag):
                words += taken
            setting = FLAGS[flag]
            if setting is not None:
                settings[setting] = _typed(section, flag, setting, value if mark else taken[1])
        return cls(words, settings)


def _names(script_texts: str, flag: str) -> bool:
    return re.search(rf"""["']{re.escape(flag)}["']""", script_texts) is not None


def _meant(section: Section, flag: str, script_texts: str) -> str:
    """Complete an option of Azure ML that lacks its last letters, as argparse does there."""
    if flag in FLAGS or not _WORD.fullmatch(flag) or _names(script_texts, flag):
        return flag
    word = flag.lower().replace("-", "_").replace("__", "--", 1)
    close = difflib.get_close_matches(word, FLAGS, n=1, cutoff=0.85)
    if close and not close[0].startswith(flag):
        raise section.error(
            f"{flag} is no option of the script, nor of a parallel job: did you mean {close[0]}?"
        )
    return close[0] if close else flag


def _typed(section: Section, flag: str, setting: str, text: str) -> Any:
    kinds: Mapping[str, Any] = {**dict.fromkeys(_WHOLE, int), **dict.fromkeys(_NUMBERS, float)}
    kind = kinds.get(setting, str)
    try:
        return kind(text)
    except ValueError:
        named = "a whole number" if kind is int else "a number"
        raise section.error(f"{flag} {text} is not accepted: it must be {named}.") from None
