"""Results on disk: one JSON object a line, written as recordings finish. A run that was ended goes on from such a file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from ecgnat_stream.analysis import Summary
from ecgnat_stream.batch.choose import RecordingFile
from ecgnat_stream.batch.work import Order, Result
from ecgnat_stream.errors import EcgnatError
from ecgnat_stream.words import as_text

__all__ = ["Lines"]


class _Head(msgspec.Struct):
    summary: Summary
    leads: tuple[str, ...] = ()


class _Line(msgspec.Struct, tag_field="type", tag="analysis"):
    """What is read again of a line."""

    path: str
    name: str
    size: int
    modified_ns: int
    settings: str
    analysis: _Head
    notes: tuple[str, ...] = ()


class Lines:
    """A file of results. Use as a context manager.

    Parameters
    ----------
    resume
        Keep what the file holds of these recordings, unchanged and analysed as the order says, with all files that belong to it;
        it is in :attr:`finished`. Everything else in it is left out.

    Raises
    ------
    EcgnatError
        If the file cannot be read or written.
    """

    def __init__(self, path: Path, order: Order, recordings: Iterable[RecordingFile], *, resume: bool = False) -> None:
        self.path, self._settings = path, order.fingerprint()
        self.finished: list[Result] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if resume and path.is_file():
                self._keep(order, {as_text(recording.path): recording for recording in recordings})
            # Without a buffer: what a full disk has refused is not tried again when the file is closed.
            self._file = path.open("ab" if resume else "wb", buffering=0)
        except OSError as error:
            raise EcgnatError(f"{path}: cannot be written ({error.strerror})") from error

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        """Close the file."""
        self._file.close()

    def write(self, result: Result) -> None:
        """Add what became of one recording; it is on disk when this returns.

        Raises
        ------
        EcgnatError
            If it cannot be written.
        """
        recording = result.recording
        line: dict[str, object] = {"type": "failure" if result.error else "analysis"}
        line |= {"path": as_text(recording.path), "name": as_text(recording.name)}
        if result.error:
            line |= {"error": as_text(result.error)}
        else:
            line |= {"size": recording.size, "modified_ns": recording.modified_ns, "settings": self._settings}
            line |= {"notes": (*result.notes, *result.unwritten), "analysis": msgspec.Raw(result.analysis)}
        try:
            left = memoryview(msgspec.json.encode(line) + b"\n")
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise EcgnatError(f"{self.path}: cannot be written ({error.strerror})") from error

    def _keep(self, order: Order, recordings: dict[str, RecordingFile]) -> None:
        part = self.path.with_name(f".{self.path.name}.part")
        decoder = msgspec.json.Decoder(_Line)
        with self.path.open("rb") as old, part.open("wb") as new:
            for text in old:
                try:
                    line = decoder.decode(text)
                except msgspec.DecodeError:
                    continue  # a failure, which is tried again, or the line that a killed run left unfinished
                recording = recordings.get(line.path)
                if recording is None or not text.endswith(b"\n") or not self._is_of(line, recording):
                    continue
                if all(file.is_file() for file in order.files_of(recording)):
                    del recordings[line.path]
                    new.write(text)
                    head = line.analysis
                    kept = Result(recording=recording, summary=head.summary, notes=line.notes, signals=head.leads)
                    self.finished.append(kept)
            new.flush()
            os.fsync(new.fileno())
        part.replace(self.path)

    def _is_of(self, line: _Line, recording: RecordingFile) -> bool:
        same = (line.name, line.size, line.modified_ns) == (as_text(recording.name), recording.size, recording.modified_ns)
        return same and line.settings == self._settings
