"""Test an entry script on one mini-batch, in a process of its own as in a run; no cluster."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from daskprs.config import ParallelRunConfig
from daskprs.entry_process.host import EntryProcess, Reply
from daskprs.entry_process.logs import ProcessLogs
from daskprs.entry_process.wire import MiniBatchContext
from daskprs.exceptions import (
    EntryScriptError,
    InitFailedError,
    InputNotFoundError,
    MiniBatchFailedError,
    UsageError,
)
from daskprs.listing import is_local
from daskprs.pieces import FilePaths, FrameRows, Piece
from daskprs.script_host import ScriptHost
from daskprs.step import ParallelRunStep

__all__ = ["EntryScriptResult", "run_entry_script"]

_LOAD_TIMEOUT = 600.0
_SHUTDOWN_TIMEOUT = 60.0
_ANY_INPUT = pd.DataFrame({"item": [0]})


@dataclass(frozen=True)
class EntryScriptResult:
    """What became of one mini-batch.

    Attributes
    ----------
    text : str
        What a run would write to the output file.
    returned, total : int
        How many results run() has returned, for how many items.
    stdout, stderr : str
        What the script has printed and logged.
    entry_script_log : str
        What ``EntryScript().logger`` has got.
    metrics : str
        What ``Run.log()`` and the like have got: lines of JSON.
    init_seconds, run_seconds : float
    """

    text: str
    returned: int
    total: int
    stdout: str = field(default="", repr=False)
    stderr: str = field(default="", repr=False)
    entry_script_log: str = field(default="", repr=False)
    metrics: str = field(default="", repr=False)
    init_seconds: float = 0.0
    run_seconds: float = 0.0
    _pickled: bytes | None = field(default=None, repr=False)

    @property
    def rows(self) -> list[str]:
        """The lines of `text`."""
        return self.text.removesuffix("\n").split("\n") if self.text else []

    @property
    def succeeded(self) -> int:
        """How many items a run would count as succeeded."""
        return min(self.returned, self.total)

    @property
    def failed(self) -> int:
        """How many items a run would count as failed."""
        return self.total - self.succeeded

    @property
    def result(self) -> Any:
        """What run() has returned: a DataFrame, a list or a tuple; of others, a list of them.

        Raises
        ------
        UsageError
            It cannot be had in this process: it is of classes of the script, say.
        """
        try:
            return pickle.loads(self._pickled or b"")
        except Exception as error:
            raise UsageError(
                f"what run() returned cannot be loaded here ({type(error).__name__}: {error}): "
                "look at rows, the text that would be written."
            ) from error


def run_entry_script(
    script: str | os.PathLike[str],
    mini_batch: Sequence[str | os.PathLike[str]] | str | os.PathLike[str] | pd.DataFrame,
    arguments: Sequence[Any] = (),
    *,
    source_directory: str | os.PathLike[str] | None = None,
    environment_variables: Mapping[str, str] | None = None,
    models: Mapping[str, Any] | None = None,
    side_inputs: Sequence[Any] | Mapping[str, Any] | None = None,
    output: str | os.PathLike[str] | None = None,
    run_invocation_timeout: float = 60,
    init_timeout: float = 600,
    logging_level: str = "INFO",
    partition_key_value: Mapping[str, Any] | None = None,
    minibatch_index: int = 0,
    dataset: str = "",
    global_row_index_lower_bound: int | None = None,
) -> EntryScriptResult:
    """Run an entry script on one mini-batch, once: init(), run(mini_batch), shutdown().

    The script runs in a process of its own, as in a run: with the same arguments, environment,
    working directory and imports, such as ``azureml_user.parallel_run``. It is tried once.

    Parameters
    ----------
    script : path
        The entry script; relative to `source_directory` where that is given.
    mini_batch : list of paths, path, or pandas DataFrame
    arguments : list
        For ``sys.argv`` of the script, as those of a `ParallelRunStep`.
    source_directory, environment_variables, run_invocation_timeout, init_timeout, logging_level
        As in a `ParallelRunConfig`.
    models : mapping, optional
        Paths by names, for ``Model.get_model_path(name)``.
    side_inputs : list or mapping, optional
        As those of a `ParallelRunStep`.
    output : path, optional
        The output folder that the script sees. Default: one that is removed afterwards.
    partition_key_value, minibatch_index, dataset, global_row_index_lower_bound
        For the second parameter of ``run(mini_batch, context)``.

    Returns
    -------
    EntryScriptResult

    Raises
    ------
    UsageError
        Wrong before anything was started.
    InitFailedError
        The script's import, or its init(), failed.
    MiniBatchFailedError
        run() failed: raised, took too long, or returned what cannot be rows.
    EntryScriptError
        shutdown() failed. All three tell the script's own traceback, and have what it has
        printed as `stdout` and `stderr`.

    Examples
    --------
    >>> from daskprs.testing import run_entry_script
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "sizes.py").write_text('''
    ... import os
    ... def run(mini_batch):
    ...     return [f"{os.path.basename(p)} {os.path.getsize(p)}" for p in mini_batch]
    ... ''')
    >>> _ = (folder / "a.dat").write_bytes(b"1234")
    >>> run_entry_script(folder / "sizes.py", [folder / "a.dat"]).rows
    ['a.dat 4']
    """
    config = ParallelRunConfig(
        entry_script=os.fspath(script),
        source_directory=source_directory,
        environment_variables=environment_variables or {},
        run_invocation_timeout=run_invocation_timeout,
        init_timeout=init_timeout,
        logging_level=logging_level,
    )
    piece = _piece_of(mini_batch)
    context = MiniBatchContext(
        minibatch_index,
        None if partition_key_value is None else dict(partition_key_value),
        dataset,
        global_row_index_lower_bound,
    )
    with ExitStack() as ending:
        if output is None:
            output = ending.enter_context(tempfile.TemporaryDirectory(prefix="daskprs-"))
        step = ParallelRunStep(
            "test-of-script",
            config,
            [_ANY_INPUT],  # what is run is the piece
            os.fspath(output),
            side_inputs,
            list(arguments),
            models=models,
        )
        job = step.make_job()
        job.folder.make()
        host = ScriptHost(job.package(in_place=True), node="node0", ip="127.0.0.1", threads=1)
        ending.callback(host.close)
        process = host.start_process(host.next_name())
        ending.callback(host.ended, process)
        ending.callback(process.kill)
        return _result(process, piece, context, config)


def _piece_of(mini_batch: Any) -> Piece:
    """Return the mini-batch as a worker gets it."""
    if isinstance(mini_batch, str | os.PathLike):
        mini_batch = [mini_batch]
    if isinstance(mini_batch, pd.DataFrame):
        piece: Piece = FrameRows(mini_batch)
    elif isinstance(mini_batch, Sequence) and all(
        isinstance(path, str | os.PathLike) for path in mini_batch
    ):
        piece = FilePaths(tuple(_absolute(os.fspath(path)) for path in mini_batch)).portable()
    else:
        raise UsageError(
            f"mini_batch of type {type(mini_batch).__name__} is not accepted: it must be a list of "
            "paths of files, or a pandas DataFrame."
        )
    if not len(mini_batch):
        raise UsageError("the mini_batch is empty: run() is never called for one without items.")
    return piece


def _absolute(path: str) -> str:
    if not is_local(path):
        return path
    if not os.path.exists(path):
        raise InputNotFoundError(f"the file {path!r} of the mini-batch is not there.")
    return os.path.abspath(path)


def _result(
    process: EntryProcess, piece: Piece, context: MiniBatchContext, config: ParallelRunConfig
) -> EntryScriptResult:
    started = process.init(config.init_timeout)
    if not started.ok:
        raise _failure(InitFailedError, "init() failed", started, process.logs)
    reply = process.run(
        piece,
        context,
        load_timeout=_LOAD_TIMEOUT,
        timeout=config.run_invocation_timeout,
        wants_result=True,
    )
    if not reply.ok:
        raise _failure(MiniBatchFailedError, "the mini-batch failed", reply, process.logs)
    failed = process.shutdown(_SHUTDOWN_TIMEOUT)
    if failed is not None:
        ended = Reply("", error=failed.error, traceback=failed.traceback)
        raise _failure(EntryScriptError, "shutdown() failed", ended, process.logs)
    payload = b"" if reply.rows is None else reply.rows.payload
    return EntryScriptResult(
        text=payload.decode("utf-8", "surrogateescape"),
        returned=reply.returned,
        total=reply.total or 0,
        init_seconds=started.run_seconds,
        run_seconds=reply.run_seconds,
        _pickled=reply.result,
        **_texts(process.logs),
    )


def _failure(
    kind: type[EntryScriptError], what: str, reply: Reply, logs: ProcessLogs
) -> EntryScriptError:
    message = (
        f"{what} ({reply.status}): {reply.error}" if reply.status else f"{what}: {reply.error}"
    )
    return kind(message, script_traceback=reply.traceback, **_texts(logs))


def _texts(logs: ProcessLogs) -> dict[str, str]:
    texts = dict.fromkeys(("stdout", "stderr", "entry_script_log", "metrics"), "")
    for chunk in logs.take_last():
        texts[chunk.kind] += chunk.data.decode("utf-8", "replace")
    return texts
