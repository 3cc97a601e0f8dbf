"""The process that hosts the user's script.

A thread cannot be stopped and a crash takes its process along, so init() and run() live in a
process of their own::

    Dask worker (a thread)                      entry process
    ──────────────────────                      ─────────────
    host.EntryProcess ── wire.Channel ────────▶ child.main
       Start(script, argv, ...)                    import, init()
                          ◀──────────────────── InitDone | Failed
       Run(piece, context), ...                    piece.load(), run(mini_batch), results.to_rows
                          ◀──────────────────── Done | Failed, one for each
       Shutdown                                    shutdown()

The child reads its mini-batch by itself and sends back rows that are ready to be written: no
table crosses the pipe. While run() is quick, conversation.Conversation sends some mini-batches
ahead. How far the child is with one, and since when, stands in memory that both share
(progress.Progress): there the clocks of loading and of run() are read when it takes long. A second
pipe is a lifeline: when the worker dies, however it dies, the child and all of its process group
die too. What has left the group is known by an environment variable, and killed when its entry
process is.
"""
