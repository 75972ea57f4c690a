# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Work shared by processes: each reports every finished piece, and what fails in one stops all.

Processes are spawned, not forked: OpenGL and torch do not survive a fork.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, cast

Work = Callable[[Any, Callable[[], None]], None]
END_S = 10.0


def in_processes(work: Work, shares: Sequence[Any], done: Callable[[], None]) -> None:
    """Call ``work(share, report)`` in a process for each share, and ``done()`` here at every ``report()``.

    :param work: can be pickled, as the shares can
    :raises OSError: when a process was killed
    :raises Exception: what the work raised; all processes have ended then
    """
    context = multiprocessing.get_context('spawn')
    processes: dict[Connection, SpawnProcess] = {}
    try:
        for share in shares:
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=_serve, args=(work, share, there), daemon=True)
            process.start()
            there.close()  # so that its end is seen here when the process ends
            processes[here] = process
        running = dict(processes)
        while running:
            for connection in cast(list[Connection], wait(list(running))):
                try:
                    message = connection.recv()
                except EOFError:
                    process = running.pop(connection)
                    process.join()
                    if process.exitcode:
                        raise OSError(f'a process of --jobs ended with status {process.exitcode} (killed, or out of '
                                      'memory?); the same command goes on from here') from None
                    continue
                if isinstance(message, Exception):
                    raise message
                done()
    finally:
        for started in processes.values():
            started.terminate()
        for started in processes.values():
            started.join(END_S)


def _serve(work: Work, share: Any, connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process in order
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # runs the clean-up of what is half written
    try:
        work(share, lambda: connection.send(None))
    except BrokenPipeError:  # the parent is gone, and with it the reason to work
        return
    except Exception as error:
        connection.send(error)
