"""A virtual environment for each peer, made by pip and kept until its requirements change."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INSTALL_SECONDS = 900

# What the entry scripts need. The model is pickled, so that one version of its package has to do.
_COMMON = ("numpy", "pandas", "pyarrow", "pillow", "joblib")
_PACKAGES = {
    "daskprs": ("-e", str(ROOT)),
    "pool": (),
    "dask": ("dask[dataframe,distributed]",),
    "ray": ("ray[data]",),
    "daft": ("daft",),
    "spark": ("pyspark[sql]", "setuptools"),
}
# Packages whose versions stand in the results.
_TOLD = {
    "daskprs": ("daskprs", "dask", "pandas", "pyarrow"),
    "pool": ("pandas", "pyarrow"),
    "dask": ("dask", "pandas", "pyarrow"),
    "ray": ("ray", "pandas", "pyarrow"),
    "daft": ("daft", "pandas", "pyarrow"),
    "spark": ("pyspark", "pandas", "pyarrow"),
}


class NotAvailableError(Exception):
    """A peer cannot be run here; the message is the reason."""


def environment(peer: str, folder: Path) -> Path:
    """Return the interpreter of a peer's environment, which is made if it is not there.

    Raises
    ------
    NotAvailableError
    """
    if peer == "spark" and not _java_works():
        raise NotAvailableError("there is no Java here")
    place = folder / peer
    stamp, wanted = place / ".installed", json.dumps(_requirements(peer))
    python = place / "bin" / "python"
    if stamp.is_file() and stamp.read_text("utf-8") == wanted:
        return python
    print(f"Installing {peer} in {place}", flush=True)
    shutil.rmtree(place, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", str(place)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         *_requirements(peer)],
    ):  # fmt: skip
        _install(command)
    stamp.write_text(wanted, "utf-8")
    return python


def _requirements(peer: str) -> list[str]:
    return [*_PACKAGES[peer], *_COMMON, f"scikit-learn=={version('scikit-learn')}"]


def _install(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            env=clean_environment(),
        )
    except subprocess.TimeoutExpired as error:
        raise NotAvailableError(f"its installation took over {INSTALL_SECONDS} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise NotAvailableError(f"its installation failed: {lines[-1] if lines else command}")


def _java_works() -> bool:
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    if java is None:
        return False
    try:
        # A stub that only says where to get Java is no Java.
        return subprocess.run([java, "-version"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def clean_environment() -> dict[str, str]:
    """Return the environment variables of programs: what changes Python's own ways is left out."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def versions(peer: str, python: Path) -> dict[str, str]:
    """Return the versions of what counts in a peer's environment."""
    code = (
        "import importlib.metadata as m, json, sys;"
        "print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    )
    done = subprocess.run(
        [str(python), "-c", code, *_TOLD[peer]],
        capture_output=True, text=True, check=True, env=clean_environment(),
    )  # fmt: skip
    found: dict[str, str] = json.loads(done.stdout)
    return found
