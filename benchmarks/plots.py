"""The results as one picture: the peers of each case, and the curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["plot"]

_WIDTH = 3


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw what was measured, where there is something to draw with."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = [(_bars, case) for case in results["cases"] if len(case["medians"]) > 1]
    for case in results["cases"]:
        facts = [(peer, figures["facts"]) for peer, figures in case["medians"].items()]
        if case["name"].startswith("J3"):  # one point is no curve
            curves = [found for _, found in facts if len(found.get("driver_curve", ())) > 1]
            drawn += [(_memory, (case, found)) for found in curves]
        drawn += [(_scale, (case, found)) for _, found in facts if found.get("curve")]
    if not drawn:
        return
    rows = -(-len(drawn) // _WIDTH)
    figure, axes = pyplot.subplots(rows, _WIDTH, figsize=(5 * _WIDTH, 3.2 * rows), squeeze=False)
    for axis in axes.flat[len(drawn) :]:
        axis.set_visible(False)
    for (draw, what), axis in zip(drawn, axes.flat, strict=False):
        draw(what, axis)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _bars(case: dict[str, Any], axis: Any) -> None:
    medians = case["medians"]
    names = list(medians)
    wall = [medians[name]["wall"] for name in names]
    work = [medians[name]["work"] or 0.0 for name in names]
    axis.barh(names, wall, color="#c8d3df", label="with start-up")
    axis.barh(names, work, height=0.4, color="#2f6690", label="at work")
    axis.invert_yaxis()
    axis.set_title(case["name"])
    axis.set_xlabel("seconds, median")
    axis.legend(fontsize=7)


def _memory(what: tuple[dict[str, Any], dict[str, Any]], axis: Any) -> None:
    case, facts = what
    points = facts["driver_curve"]
    axis.plot([p["done"] for p in points], [p["bytes"] / 1e6 for p in points], color="#2f6690")
    axis.set_title(f"{case['name']}: the driver")
    axis.set_xlabel("mini-batches done")
    axis.set_ylabel("MB above idle")
    axis.set_ylim(bottom=0)


def _scale(what: tuple[dict[str, Any], dict[str, Any]], axis: Any) -> None:
    case, facts = what
    points = facts["curve"]
    processes = [point["processes"] for point in points]
    axis.plot(processes, [p["per_second"] for p in points], "o-", color="#2f6690", label="done")
    axis.plot(processes, processes, ":", color="grey", label="at best")
    axis.set_title(case["name"])
    axis.set_xlabel("processes")
    axis.set_ylabel("mini-batches a second")
    axis.legend(fontsize=7, loc="upper left")
    load = axis.twinx()
    load.plot(processes, [p["scheduler_cpu"] for p in points], "--", color="#d1495b")
    load.plot(processes, [p["driver_cpu"] for p in points], "-.", color="#edae49")
    load.set_ylabel("cores busy: scheduler --, driver -.")
    load.set_ylim(bottom=0)
