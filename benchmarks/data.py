"""Input data, generated once for each key and kept."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# Change it when what a maker makes has changed.
_VERSION = 1
IN_FOLDER = 1000
COLUMNS = {
    "id": "int64", "station": "str", "temperature": "float64", "humidity": "float64",
    "pressure": "float64", "note": "str",
}  # fmt: skip
LINE_BYTES = 42


def cached(folder: Path, key: str, make: Callable[[Path], None]) -> Path:
    """Return the folder of this key; `make` fills a new one."""
    place = folder / f"{key}-v{_VERSION}"
    if not place.is_dir():
        print(f"Making {place}", flush=True)
        unfinished = place.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        make(unfinished)
        unfinished.rename(place)
    return place


def tables(folder: Path, megabytes: float, files: int) -> Path:
    """CSV files of different size: the largest has about three times the bytes of the smallest."""

    def make(place: Path) -> None:
        shares = np.linspace(0.5, 1.5, files) / files
        random.Random(1).shuffle(shares)  # type: ignore[arg-type]
        first = 0
        for number, share in enumerate(shares):
            rows = max(1, int(megabytes * 1e6 * share / LINE_BYTES))
            _table(first, rows).to_csv(place / f"{number:03d}.csv", index=False)
            first += rows

    return cached(folder, f"tables-{megabytes:g}-{files}", make)


def _table(first: int, rows: int) -> Any:
    import pandas as pd

    chance = np.random.default_rng(first)
    stations = np.array([f"station-{number:03d}" for number in range(200)])
    notes = np.array(["", "dry", "rain, wind", "sun"])
    return pd.DataFrame(
        {
            "id": np.arange(first, first + rows),
            "station": stations[chance.integers(0, len(stations), rows)],
            "temperature": chance.normal(12, 9, rows).round(2),
            "humidity": chance.uniform(20, 100, rows).round(1),
            "pressure": chance.normal(1013, 8, rows).round(1),
            "note": notes[chance.integers(0, len(notes), rows)],
        }
    )


def pictures(folder: Path, count: int) -> Path:
    """PNG files of 28 by 28 pixels in `files`, and a classifier for them, `model.joblib`."""

    def make(place: Path) -> None:
        import joblib
        from PIL import Image
        from sklearn.datasets import load_digits
        from sklearn.linear_model import RidgeClassifier

        chance, digits = np.random.default_rng(1), load_digits()
        large = [np.asarray(Image.fromarray((picture * 15).astype(np.uint8)).resize((28, 28)))
                 for picture in digits.images]  # fmt: skip
        known = np.stack([picture.ravel() for picture in large]).astype(np.float32) / 255
        model = RidgeClassifier().fit(known, digits.target)
        joblib.dump(model, place / "model.joblib")
        for number in range(count):
            noise = chance.integers(0, 40, (28, 28))
            picture = np.clip(large[number % len(large)] + noise, 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(_place(place / "files", number, f"{number:07d}.png"))

    return cached(folder, f"pictures-{count}", make)


def empty_files(folder: Path, count: int) -> Path:
    """Files of no bytes, in folders of a thousand."""

    def make(place: Path) -> None:
        for number in range(count):
            _place(place / "files", number, f"{number:07d}").touch()

    return cached(folder, f"empty-{count}", make)


def timed_files(folder: Path, key: str, milliseconds: list[float]) -> Path:
    """Files whose names say how long they take."""

    def make(place: Path) -> None:
        for number, duration in enumerate(milliseconds):
            _place(place / "files", number, f"{number:07d}-{duration:g}.ms").touch()

    return cached(folder, key, make)


def _place(folder: Path, number: int, name: str) -> Path:
    inner = folder / f"{number // IN_FOLDER:05d}"
    if number % IN_FOLDER == 0:
        inner.mkdir(parents=True)
    return inner / name


def skewed(count: int, longest: float) -> list[float]:
    """Durations in ms: `count` from 1 to 20 ms, and then four pairs of long ones."""
    chance = random.Random(1)
    short = [round(10 ** chance.uniform(0, 1.3), 1) for _ in range(count)]
    return short + [longest * 1000 * share for share in (0.2, 0.2, 0.4, 0.4, 1, 1, 1, 1)]
