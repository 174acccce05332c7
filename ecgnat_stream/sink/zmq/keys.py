"""Whom the publisher knows: a folder of public keys that is read again when it changes."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

import zmq.auth

__all__ = ["ClientKeys"]

_log = logging.getLogger(__name__)

_MOST, _LARGEST = 10_000, 65_536
"""Files that are read, and bytes of each: a certificate of ZeroMQ has less than 1 kB."""

_LOOK_AGAIN_S = 0.1
"""The folder is looked at for each key that knocks, but not more often than this."""

_Signature = frozenset[tuple[str, int, int, int]]


class ClientKeys:
    """The public keys (Z85) of a folder; answers the questions of ZeroMQ's authentication.

    Parameters
    ----------
    folder
        Holds a ``*.key`` file for each subscriber.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._signature: _Signature = frozenset()
        self._known: frozenset[bytes] = frozenset()
        self._lock = threading.Lock()
        self._looked_s = float("-inf")
        self.refresh()

    def __contains__(self, key: object) -> bool:
        """Return whether a key was known when the folder was last read."""
        return key in self._known

    def callback(self, _: str, key: bytes) -> bool:
        """Return whether a key that knocks is known now; the name is what ``configure_curve_callback`` asks for."""
        if time.monotonic() - self._looked_s > _LOOK_AGAIN_S:
            self.refresh()
        return key in self

    def refresh(self) -> None:
        """Read the folder if it has changed."""
        with self._lock:
            self._looked_s = time.monotonic()
            signature = self._look()
            if signature != self._signature:
                self._signature = signature
                self._read_all(signature)

    def _read_all(self, signature: _Signature) -> None:
        before = self._known
        self._known = frozenset(key for name, *_ in sorted(signature) if (key := self._read(self._folder / name)) is not None)
        if before:
            new, gone = len(self._known - before), len(before - self._known)
            _log.info("zmq.clients_dir: %d keys, %d new, %d taken away", len(self._known), new, gone)
        if not self._known:
            _log.warning("zmq.clients_dir: no key in %s is left: nobody is let in", self._folder)

    def _look(self) -> _Signature:
        found: list[tuple[str, int, int, int]] = []
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if entry.name.endswith(".key") and len(found) < _MOST:
                        about = entry.stat()
                        found.append((entry.name, about.st_ino, about.st_mtime_ns, about.st_size))
        except OSError as error:
            # A folder that is gone, or a file that goes while it is looked at: what cannot be read lets nobody in.
            _log.warning("zmq.clients_dir: %s", error)
        return frozenset(found)

    @staticmethod
    def _read(path: Path) -> bytes | None:
        try:
            if path.stat().st_size > _LARGEST:
                raise ValueError(f"more than {_LARGEST} bytes")
            return zmq.auth.load_certificate(path)[0]
        except (OSError, ValueError, IndexError) as error:
            _log.warning("zmq.clients_dir: %s is no public key: %s", path.name, error)
            return None
