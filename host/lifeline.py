"""A child process's side of its lifeline: how it ends when the node ends, however that happens.

The only module of this room that child programs import; it must stay light.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal


def die_with_the_node(lifeline: int) -> None:
    """In a child: have the whole process group killed when the lifeline's other end closes.

    On Linux the kernel does it, whatever the program is busy with, C code that holds the GIL
    included. Elsewhere a thread waits for it.
    """
    os.set_inheritable(lifeline, False)
    if not hasattr(fcntl, "F_SETSIG"):
        _watch(lifeline)
        return
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
    # It may have closed before anybody was to be told.
    poll = select.poll()
    poll.register(lifeline, 0)
    if poll.poll(0):
        os.killpg(os.getpgrp(), signal.SIGKILL)


def _watch(lifeline: int) -> None:
    import threading

    def wait() -> None:
        os.read(lifeline, 1)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
