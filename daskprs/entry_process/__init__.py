"""The process that hosts the user's script.

A thread cannot be stopped and a crash takes its process along, so init() and run() live in a
process of their own::

    Dask worker (a thread)                      entry process
    ──────────────────────                      ─────────────
    host.EntryProcess ── wire.Channel ────────▶ child.main
       Start(script, argv, ...)                    import, init()
                          ◀──────────────────── InitDone | Failed
       Run(piece, context)                         piece.load(), run(mini_batch), results.to_rows
                          ◀──────────────────── Loaded, Returned, then Done | Failed
       Shutdown                                    shutdown()

The child reads its mini-batch by itself and sends back rows that are ready to be written: no
table crosses the pipe. run()'s clock ticks from Loaded to Returned. A second pipe is a lifeline:
when the worker dies, however it dies, the child and all of its process group die too. What has
left the group is known by an environment variable, and killed when its entry process is.
"""
