"""Puts inputs through a target, each within bounds of processor time; whatever is not the target's own error is a finding."""

from __future__ import annotations

import hashlib
import logging
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from ecgnat_stream.errors import EcgnatError
from tests.fuzz.mutate import Mutator
from tests.fuzz.targets import Target

__all__ = ["Finding", "Taker", "bounded", "run"]

_MOST_TEXT = 4000


class TooLong(BaseException):
    """An input took more processor time than is allowed; no reader may catch it."""


@dataclass(frozen=True)
class Finding:
    """An input that did what no input may do."""

    target: str
    what: str
    data: bytes
    where: str

    @property
    def name(self) -> str:
        """A name for its file."""
        return f"{self.target}-{hashlib.sha256(self.data).hexdigest()[:12]}"


@dataclass
class Taker:
    """One target at work: takes inputs, keeps what it found, the first of each kind."""

    target: Target
    take: Callable[[bytes], None]
    limit_s: float | None = None
    keep: Callable[[Finding], None] = lambda _: None
    inputs: int = 0
    found: dict[str, Finding] = field(default_factory=dict)

    def __call__(self, data: bytes) -> None:
        """Put one input through."""
        self.inputs += 1
        try:
            with bounded(self.limit_s):
                self.take(data)
        except self.target.allowed as error:
            text = str(error)
            if not text:
                self._find(f"an error without a word: {type(error).__name__}", data, error)
            elif isinstance(error, EcgnatError) and (len(text) > _MOST_TEXT or not text.replace("\n", "").isprintable()):
                self._find(f"an error that nobody can read: {type(error).__name__}", data, error)
        except (Exception, TooLong) as error:  # noqa: BLE001 - what it is for
            self._find(f"{type(error).__name__}: {error}"[:300], data, error)

    def _find(self, what: str, data: bytes, error: BaseException) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "/tests/fuzz/" not in frame.filename] or frames
        kind = f"{type(error).__name__} at {own[-1].filename}:{own[-1].lineno}"
        if kind not in self.found:
            where = "".join(traceback.format_exception(error, limit=-8))
            self.found[kind] = Finding(self.target.name, what, data, where)
            self.keep(self.found[kind])


@contextmanager
def bounded(limit_s: float | None) -> Iterator[None]:
    """Raise TooLong within the block after so much processor time, s."""
    if limit_s is None:
        yield
        return

    def end(_: int, __: FrameType | None) -> None:
        raise TooLong(f"more than {limit_s:g} s of processor time")

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def quiet() -> Iterator[None]:
    """Write no log: it would have a line for nearly every input."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def run(
    target: Target,
    scratch: Path,
    inputs: int,
    seed: int,
    *,
    limit_s: float | None = None,
    keep: Callable[[Finding], None] = lambda _: None,
    watch: Callable[[int, bytes], None] = lambda _, __: None,
    prepared: Callable[[], None] = lambda: None,
    engine: str = "random",
) -> Taker:
    """Put damaged seeds through a target.

    Parameters
    ----------
    keep
        Called with every finding, the first of each kind.
    watch
        Called with the count and the input before each one, so that an input that ends the process is known.
    prepared
        Called when the target has taken its seeds, before the first damaged input.
    engine
        ``random``, or ``atheris`` where it is installed: it looks which inputs reach new code, and ends the process.
    """
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        taker = Taker(target, target.prepare(scratch), limit_s, keep)
        seeds = target.seeds()
        for data in seeds:
            taker(data)
        prepared()
        if engine == "atheris":
            _guided(taker, seeds, inputs, seed, scratch, watch)
            return taker
        mutator = Mutator(seeds, target.words, seed)
        while taker.inputs < inputs:
            data = mutator.next()
            watch(taker.inputs, data)
            taker(data)
    return taker


def _guided(taker: Taker, seeds: list[bytes], inputs: int, seed: int, scratch: Path, watch: Callable[[int, bytes], None]) -> None:
    import atheris  # by hand, where there is a wheel for it: it is no dependency

    corpus = scratch.parent / "corpus"
    corpus.mkdir()
    for number, data in enumerate(seeds):
        (corpus / f"{number}").write_bytes(data)
    words = scratch.parent / "words"
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in taker.target.words)
    words.write_text("".join(f'"{word}"\n' for word in escaped))

    def one(data: bytes) -> None:
        watch(taker.inputs, data)
        taker(data)
        watch(taker.inputs, data)

    options = (
        f"-runs={max(1, inputs - taker.inputs)}",
        f"-seed={seed or 1}",
        "-max_len=16384",
        "-rss_limit_mb=0",
        "-verbosity=0",
    )
    extra = (f"-dict={words}",) if taker.target.words else ()
    atheris.Setup([sys.argv[0], *options, *extra, str(corpus)], one)
    atheris.Fuzz()
