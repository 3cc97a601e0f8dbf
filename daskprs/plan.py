"""Plan: the mini-batches of a step, to be looked at before anything runs."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from daskprs.config import ParallelRunConfig
from daskprs.datasets import FrameDataset
from daskprs.mini_batches import Dataset, Draft, MiniBatch, is_shuffled, plan
from daskprs.redaction import Secrets
from daskprs.wording import counted

__all__ = ["Plan"]


@dataclass
class Plan:
    """What would run, as `ParallelRunStep.plan` tells it.

    Attributes
    ----------
    mini_batches : list of MiniBatch
        In order. Those that only a cluster can find are not here: see `later`.
    later : list of str
        Inputs whose mini-batches are known only when their rows have been read.
    """

    mini_batches: list[MiniBatch] = field(default_factory=list)
    later: list[str] = field(default_factory=list)
    secrets: Secrets = field(default_factory=Secrets, repr=False)

    @classmethod
    def of(cls, inputs: Sequence[Dataset], config: ParallelRunConfig) -> Plan:
        """List the inputs and cut them."""
        later = []

        def only_on_cluster(dataset: Dataset) -> Iterator[Draft] | None:
            if is_shuffled(dataset, config):
                later.append(f"{dataset.name}: one for each combination of {config.partition_keys}")
                return iter(())
            return None

        named = [dataset for dataset in inputs if not isinstance(dataset, FrameDataset)]
        secrets = Secrets([d.storage_options for d in named], [u for d in named for u in d.urls])
        return cls(list(plan(inputs, config, only_on_cluster)), later, secrets)

    def __len__(self) -> int:
        return len(self.mini_batches)

    def __iter__(self) -> Iterator[MiniBatch]:
        return iter(self.mini_batches)

    @property
    def nbytes(self) -> int:
        """Bytes of source data, as far as they are known."""
        return sum(mini_batch.nbytes or 0 for mini_batch in self.mini_batches)

    def rows(self) -> Iterator[tuple[str, str, str, str]]:
        """Give index, items, bytes and what it is, of each mini-batch, as text."""
        for mini_batch in self.mini_batches:
            items = "?" if mini_batch.items is None else str(mini_batch.items)
            nbytes = "?" if mini_batch.nbytes is None else str(mini_batch.nbytes)
            keys = mini_batch.partition_key_value
            what = str(mini_batch.piece) if keys is None else f"{keys} {mini_batch.piece}"
            yield str(mini_batch.index), items, nbytes, self.secrets.hide(what)

    @property
    def summary(self) -> str:
        """One line with the totals."""
        items = sum(mini_batch.items or 0 for mini_batch in self.mini_batches)
        known = [counted(items, "item")] if items else []
        parts = [counted(len(self), "mini-batch"), *known, counted(self.nbytes, "byte")]
        text = ", ".join(parts)
        return self.secrets.hide("; ".join([text, *self.later]))

    def __repr__(self) -> str:
        lines = [self.summary]
        for number, row in enumerate(self.rows()):
            if number == 20:
                lines.append(f"... and {len(self) - 20:,} more")
                break
            lines.append("{:>8} {:>8} items {:>12} bytes  {}".format(*row))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("mini-batch", "items", "bytes", "input"))
        body = ""
        for number, row in enumerate(self.rows()):
            if number == 20:
                break
            body += "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        return f"<b>{html.escape(self.summary)}</b><table><tr>{head}</tr>{body}</table>"
