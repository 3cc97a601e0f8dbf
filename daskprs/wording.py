"""Numbers in messages: one mini-batch, two mini-batches."""

from __future__ import annotations

__all__ = ["counted"]


def counted(count: int, one: str, many: str = "") -> str:
    """Say how many there are.

    Parameters
    ----------
    count : int
    one : str
        What one of them is called.
    many : str
        What several are called; default: the plural of `one`.

    Examples
    --------
    >>> from daskprs.wording import counted
    >>> counted(1, "mini-batch"), counted(1200, "mini-batch"), counted(0, "item")
    ('1 mini-batch', '1,200 mini-batches', '0 items')
    >>> counted(1, "worker has", "workers have")
    '1 worker has'
    """
    plural = many or (f"{one}es" if one.endswith(("ch", "s")) else f"{one}s")
    return f"{count:,} {one if count == 1 else plural}"
