"""What a script writes beside itself is no change of what it reads."""

from __future__ import annotations

import time
from pathlib import Path

from daskprs.data_files import WrittenFiles
from daskprs.output_folder import OutputFolder


def test_the_last_look_is_taken_however_long_the_one_before_took(tmp_path: Path) -> None:
    """Otherwise a run whose machine stood still for a moment could not be reused."""
    folder = OutputFolder(tmp_path)
    folder.make()
    written = WrittenFiles(folder)

    def slow() -> set[str]:
        time.sleep(0.05)
        return set()

    written.look(slow)
    written.look(lambda: {"log.txt"}, now=True)
    assert WrittenFiles(folder).load() == set(), "looks that take long are taken now and then"
    written.look(lambda: {"log.txt"}, last=True)
    assert WrittenFiles(folder).load() == {"log.txt"}
