"""Which GPUs a node has, as values for CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess

__all__ = ["visible_gpus"]

_DEVICE = re.compile(r"\d+|GPU-\S+|MIG-\S+")


def visible_gpus() -> list[str]:
    """List the GPUs that this process may use; empty where there is none.

    ``CUDA_VISIBLE_DEVICES`` of the worker is respected: its entries are dealt out. As for
    CUDA, the first that is no device, such as -1, ends the list.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return list(itertools.takewhile(_DEVICE.fullmatch, map(str.strip, given.split(","))))
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    lines = [line for line in listed.stdout.splitlines() if line.startswith(b"GPU ")]
    return [str(index) for index in range(len(lines))] if listed.returncode == 0 else []
