"""Which GPUs a node has, as values for CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

import os
import shutil
import subprocess

__all__ = ["visible_gpus"]


def visible_gpus() -> list[str]:
    """List the GPUs that this process may use; empty where there is none.

    ``CUDA_VISIBLE_DEVICES`` of the worker is respected: its entries are dealt out.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [part.strip() for part in given.split(",") if part.strip() not in ("", "-1")]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return []
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(index) for index in range(len(lines))] if listed.returncode == 0 else []
