"""The name of a monitor that nobody has named: the machine's, and a number if other monitors run there.

A monitor that is started again has the name of the one before, so that nothing is left behind at a broker under names that never
come back. Two that run at the same time have two names.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
from functools import cache

__all__ = ["own_name"]

_PLACE = "ecgnat-stream/worker"
_MOST = 1000
"""Monitors on one machine."""


def own_name() -> str:
    """Return the name of this process: ``icu-pc``, or ``icu-pc-2`` where another process has that already."""
    return _of_process(os.getpid())


@cache
def _of_process(process: int) -> str:
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname().partition(".")[0]).lstrip("._-") or "monitor"
    if not sys.platform.startswith("linux"):
        return f"{host}-{process}"
    for number in range(1, _MOST):
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # In the abstract namespace (unix(7)): no file, gone with the process, the same for all accounts of the machine.
            holder.bind(f"\0{_PLACE}/{number}")
        except OSError as error:
            holder.close()
            if error.errno == errno.EADDRINUSE:
                continue
            break
        holder.detach()  # open until the process ends, however it ends
        return host if number == 1 else f"{host}-{number}"
    return f"{host}-{process}"
