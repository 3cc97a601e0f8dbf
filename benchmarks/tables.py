"""The results as tables in markdown."""

from __future__ import annotations

from typing import Any

__all__ = ["as_markdown"]

_HEAD = ("Peer", "Wall s", "x daskprs", "At work s", "x daskprs", "First row s", "Peak MB")
_SMALL = "Most of the time is start-up here; the targets of J1 and J2 are for the full sizes."
_OURS = ("daskprs", "command")


def as_markdown(results: dict[str, Any]) -> str:
    """Return a table of the targets, and one of the peers for each case."""
    size, machine = "small" if results["small"] else "full", results["machine"]
    lines = [
        f"# Benchmarks, {size}",
        "",
        f"{machine['cores']} cores, {machine['memory'] / 1e9:.0f} GB, {machine['system']}, "
        f"Python {machine['python']}, load {machine['load'][0]:.1f} at the start, "
        f"{machine['when']}.",
        "",
        *((_SMALL, "") if results["small"] else ()),
        *_table(
            ("Job", "What", "Target", "Found", "Met"),
            [(c["name"], c["what"], c["target"], c["found"], _met(c["is_met"]))
             for c in results["cases"]],
        ),
    ]  # fmt: skip
    for case in results["cases"]:
        lines += ["", f"## {case['name']}", "", f"{case['what']}.", "", *_peers(case)]
    lines += ["", "## Versions", ""]
    for peer, found in results["versions"].items():
        lines.append(f"* {peer}: {', '.join(f'{name} {v}' for name, v in found.items())}")
    for name, why in results["skipped"].items():
        lines.append(f"* not measured: {name}: {why}")
    return "\n".join(lines) + "\n"


def _met(is_met: bool | None) -> str:
    return {True: "yes", False: "**no**", None: "?"}[is_met]


def _peers(case: dict[str, Any]) -> list[str]:
    medians = case["medians"]
    ours = next((medians[name] for name in _OURS if name in medians), None)
    rows = []
    for peer, figures in medians.items():
        rows.append(
            (
                peer,
                _seconds(figures["wall"]),
                _ratio(figures, ours, "wall"),
                _seconds(figures["work"]),
                _ratio(figures, ours, "work"),
                _seconds(figures["first"]),
                _megabytes(figures["memory"]),
            )
        )
    return _table(_HEAD, rows)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _megabytes(value: float | None) -> str:
    return "" if value is None else f"{value / 1e6:.0f}"


def _ratio(figures: dict[str, Any], ours: dict[str, Any] | None, name: str) -> str:
    if ours is None or not figures[name] or not ours[name]:
        return ""
    return f"{figures[name] / ours[name]:.2f}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]
