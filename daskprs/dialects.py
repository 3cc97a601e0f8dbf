"""How a CSV file is written."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Dialect"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a CSV file is written, in single bytes.

    The encoding has to be one in which these bytes and newlines never are a part of another
    character, such as UTF-8 and Latin-1; UTF-16 is not.  Blanks as delimiter by
    ``delim_whitespace`` or a regular expression, comments and own line terminators are not
    supported.

    Parameters
    ----------
    delimiter
        Byte between two fields.
    quotechar
        Byte around quoted fields.
    escapechar
        Byte that takes away the meaning of the next one, if any.
    doublequote
        Whether two quotes within a quoted field are one literal quote.
    quoting
        Whether there are quoted fields at all (False is ``csv.QUOTE_NONE``).
    skipinitialspace
        Whether spaces after a delimiter are skipped.
    """

    delimiter: bytes = b","
    quotechar: bytes = b'"'
    escapechar: bytes | None = None
    doublequote: bool = True
    quoting: bool = True
    skipinitialspace: bool = False

    def __post_init__(self) -> None:
        special = {"delimiter": self.delimiter}
        if self.quoting:
            special["quotechar"] = self.quotechar
        if self.escapechar is not None:
            special["escapechar"] = self.escapechar
        for name, char in special.items():
            blanks = b"\r\n" if name == "delimiter" else b" \t\r\n"
            if len(char) != 1 or char in blanks:
                raise ValueError(f"the {name} of a CSV file cannot be {char!r}")
        if len(set(special.values())) < len(special):
            raise ValueError(f"{', '.join(special)} of a CSV file must differ: {self}")
