"""JSON text that is valid UTF-8 whatever bytes a file name holds."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["json_text"]


def json_text(value: Any, **options: Any) -> str:
    """Return JSON with readable non-Latin text; escaped only where UTF-8 cannot hold it."""
    text = json.dumps(value, ensure_ascii=False, **options)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a file name that is not UTF-8, as surrogate escapes
        return json.dumps(value, ensure_ascii=True, **options)
    return text
