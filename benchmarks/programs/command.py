"""The command `daskprs run`, from nothing to its end."""

import os
import sys
from pathlib import Path

from common import arguments


def main():
    job, data, out = arguments()
    command = str(Path(sys.executable).with_name("daskprs"))
    os.execv(
        command,
        [command, "run", job.script, "--files", str(data), "--output", str(out / "rows"),
         "--mini-batch-size", str(job.size), "--process-count-per-node", str(job.processes),
         "--append-row-file-name", "result", "--quiet", "--", *job.arguments],
    )  # fmt: skip


if __name__ == "__main__":
    main()
