"""Paths and addresses as people write them: the one place where ``~``, variables, percent signs and brackets are read.

In come texts of settings and of the command line; out go paths and the parts of a URL, or a ``ConfigError`` that says what to
write. Files that hold settings or secrets are read here too: never without a bound, and never so that it waits for ever.
"""

from __future__ import annotations

import codecs
import os
import re
import select
import stat
import sys
import time
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from ecgnat_stream.errors import ConfigError

__all__ = [
    "BROKER_PORTS",
    "NAMES_NOTHING",
    "Address",
    "address",
    "broker_address",
    "cache_folder",
    "endpoint",
    "file_bytes",
    "kind_of",
    "path_of",
    "regular_file",
    "text_of",
]

BROKER_PORTS = {"mqtt": 1883, "mqtts": 8883}
"""Schemes of a broker, and the port that each stands for (IANA)."""

NAMES_NOTHING = "names nothing: is a variable of the shell empty? A dot is this folder"
"""What is said of an empty text where a path belongs."""

_VARIABLE = re.compile(r"(?:^|/)\$(?:\{(\w+)\}|([A-Za-z_]\w*))")
_BRACKETED = re.compile(r"\[([^\[\]]*)\](?::(.*))?")
_PIPE_S = 5.0
"""Longest wait for somebody who writes to a pipe, s."""

_LONGEST_PATH = 4096
"""PATH_MAX of Linux, limits.h: no file has a longer one."""


def path_of(text: str | os.PathLike[str]) -> Path:
    """Return a path, with the home folder for ``~`` and ``~name``, and values for ``$NAME`` and ``${NAME}``.

    A name with such a sign in it that is there, as it is written, is taken as it is.

    Raises
    ------
    ConfigError
        For an account or a variable that does not exist, and what no path can be.
    """
    written = os.fspath(text)
    if "\0" in written:
        raise ConfigError(f"{written!r} holds a zero byte, which no path can")
    try:
        os.fsencode(written)
    except UnicodeEncodeError as error:
        odd, encoding = written[error.start], sys.getfilesystemencoding()
        raise ConfigError(f"a file name cannot hold {odd!a} here, where names are {encoding}: set LC_ALL=C.UTF-8?") from error
    if len(written) > _LONGEST_PATH:
        raise ConfigError(f"a path of {len(written)} characters: no file has one of more than {_LONGEST_PATH}")
    if written[:1] not in ("~", "$") and "/$" not in written:
        return Path(written)
    found = os.path.expanduser(os.path.expandvars(written)) if os.environ.get("HOME", "/") else os.path.expandvars(written)
    if found[:1] != "~" and not (left := _VARIABLE.search(found)):
        return Path(found)
    if not found.startswith("~/") and found != "~" and os.path.lexists(written):
        return Path(written)
    if found[:1] == "~":
        name = found.partition("/")[0]
        why = f"there is no account {name[1:]}" if name[1:] else "HOME is not set, and this account has no home folder"
        raise ConfigError(f"{written}: {why}: write the whole path, or ./{name} for what is called so")
    assert left is not None
    raise ConfigError(f"{written}: the environment has no {left[1] or left[2]}: set it, or write the whole path")


def cache_folder(name: str) -> Path:
    """Return where this account keeps what can be made again (XDG Base Directory Specification); it need not be there yet.

    Raises
    ------
    ConfigError
        Where the account has no home folder.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else path_of("~/.cache")) / "ecgnat-stream" / name


class Address(NamedTuple):
    """The parts of a URL, decoded; ``port`` None where none is written. Its text never holds the password."""

    scheme: str
    user: str | None
    password: str | None
    host: str
    port: int | None

    def __repr__(self) -> str:
        return f"Address({self})"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port is None else f":{self.port}")


def address(text: str, schemes: Mapping[str, int | None], *, any_port: str = "") -> Address:
    """Read ``scheme://[user[:password]@]host[:port][/]``; user, password and host are percent-decoded.

    Parameters
    ----------
    schemes
        The schemes that are known, and the port that each stands for.
    any_port
        What may stand for port 0.

    Raises
    ------
    ConfigError
        Saying what is wrong and what to write; a part that may hold a password is not shown.
    """
    example = f"write {' or '.join(f'{scheme}://host:port' for scheme in schemes)}"
    text = text.strip()
    if not text:
        raise ConfigError(f"is empty: {example}")
    scheme, mark, rest = text.partition("://")
    if not mark:
        meant = f", here {next(iter(schemes))}://{text}" if re.fullmatch(r"[\w.:-]+", text, re.ASCII) else ""
        raise ConfigError(f"has no scheme: {example}{meant}")
    if scheme.lower() not in schemes:
        raise ConfigError(f"scheme {scheme[:20]!r} is not known here: {example}")
    if not text.isprintable() or " " in text:
        raise ConfigError(f"holds a blank or a character that cannot be shown: {example}, a blank as %20")
    where, tail = re.fullmatch(r"([^/?#]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    if "@" in tail:
        raise ConfigError("a '/', '?' or '#' in a user name or password is written %2F, %3F or %23")
    if tail not in ("", "/"):
        raise ConfigError(f"path {tail[:100]!r} behind the host: {example}, and nothing more")
    account, at, place = where.rpartition("@")
    name, colon, secret = account.partition(":")
    user = _decoded(name, "user name") if at and name else None
    password = _decoded(secret, "password") if colon else None
    host, port = _host_and_port(place, example, any_port)
    return Address(scheme.lower(), user, password, host, schemes[scheme.lower()] if port is None else port)


def _host_and_port(place: str, example: str, any_port: str) -> tuple[str, int | None]:
    bracketed = _BRACKETED.fullmatch(place)
    host, port = (bracketed[1], bracketed[2] or "") if bracketed else place.partition(":")[::2]
    if ":" in port or (not bracketed and set("[]") & set(place)):
        raise ConfigError(f"{place[:100]!r} is no host and port: an IPv6 address is written in brackets, as in //[::1]:1883")
    host = _decoded(host, "host")
    try:
        if bracketed and ip_address(host).version != 6:
            raise ConfigError(f"[{host}] is no IPv6 address: only these stand in brackets")
        if not bracketed:
            host.encode("idna")
    except ValueError as error:
        raise ConfigError(f"host {host[:100]!r}: {error}: {example}") from error
    if not host:
        raise ConfigError(f"host '' is none: {example}")
    if port in ("", any_port):
        return host, 0 if port else None
    if not (port.isascii() and port.isdigit() and int(port[:6]) <= 65_535):
        raise ConfigError(f"port {port[:20]!r} is out of range: a number from 1 to 65535")
    return host, int(port)


def _decoded(text: str, what: str) -> str:
    try:
        plain = unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise ConfigError(f"the {what} is not UTF-8 behind its percent signs: 'é' is %C3%A9") from error
    if not plain.isprintable():
        raise ConfigError(f"the {what} holds a character that cannot be shown")
    return plain


def broker_address(text: str) -> Address:
    """Return where a broker is.

    Raises
    ------
    ConfigError
        As :func:`address`, and for a password, which everybody sees in the list of processes and in a configuration.
    """
    found = address(text, BROKER_PORTS)
    if found.password is not None:
        raise ConfigError("holds a password: give it in ECGNAT_MQTT_PASSWORD, or in a file that mqtt.credentials_file names")
    return found


def endpoint(text: str) -> str:
    """Return an endpoint of ZeroMQ as the library takes it: ``tcp://host:port`` (``*`` a free one), ``ipc://path``.

    Raises
    ------
    ConfigError
        As :func:`address`, for a port that is missing, and a path that a socket cannot have.
    """
    text = text.strip()
    transport, mark, rest = text.partition("://")
    if transport == "inproc" and mark and rest.isprintable() and rest:
        return text
    if transport == "ipc" and mark:
        if rest[:1] == "@":  # a name without a file (unix(7), abstract)
            return text
        if not rest:
            raise ConfigError("names no file: write ipc:///run/ecgnat/events.sock")
        path = os.fspath(path_of(rest))
        if len(os.fsencode(path)) > 107:  # sun_path of unix(7), with its zero
            raise ConfigError(f"a path of {len(os.fsencode(path))} bytes: that of a socket has at most 107")
        return f"ipc://{path}"
    found = address(text, {"tcp": None}, any_port="*")
    if found.user is not None or found.password is not None:
        raise ConfigError("ZeroMQ knows no user names: keys are set in zmq.secret_key_file and zmq.clients_dir")
    if found.port is None:
        raise ConfigError(f"{text!r} has no port: write {found}:5556, or {found}:* for a free one")
    return str(found._replace(port=None)) + f":{found.port or '*'}"


def regular_file(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file that a library is going to read: it is there, may be read, and reading it does not wait.

    Raises
    ------
    ConfigError
        For what is missing or closed to this account; a folder, a pipe, a device.
    """
    found = path_of(path)
    try:
        descriptor = os.open(found, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise ConfigError(f"cannot read {str(found)!r} ({error.strerror})") from error
    try:
        kind = os.fstat(descriptor).st_mode
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(kind):
        raise ConfigError(f"cannot read {str(found)!r}: it is {kind_of(kind)}; name a file")
    return found


def file_bytes(path: str | os.PathLike[str], most: int) -> bytes:
    """Return a small file whole, or of a pipe that somebody writes to now, such as ``<(...)`` of a shell.

    Parameters
    ----------
    most
        Largest size, bytes.

    Raises
    ------
    ConfigError
        For what cannot be read, or is too large; for a folder, a device, and a pipe that nobody writes to.
    """
    found = path_of(path)
    try:
        descriptor = os.open(found, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            kind = os.fstat(descriptor).st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISFIFO(kind)):
                raise ConfigError(f"is {kind_of(kind)}: name a file")
            content = _content(descriptor, most)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})") from error
    if len(content) > most:
        raise ConfigError(f"is larger than the {most / 1e6:g} MB that it may have")
    return content


def _content(descriptor: int, most: int) -> bytes:
    """Read up to one byte more than ``most``; of a pipe until its other end is closed, but not for longer than a moment."""
    content = b""
    until_s = time.monotonic() + _PIPE_S
    while len(content) <= most:
        if not select.select([descriptor], [], [], max(0.0, until_s - time.monotonic()))[0]:
            raise ConfigError(f"is a pipe to which nobody has written everything within {_PIPE_S:g} s")
        try:
            more = os.read(descriptor, most + 1 - len(content))
        except BlockingIOError:
            continue
        if not more:
            break
        content += more
    return content


def text_of(content: bytes) -> str:
    """Return bytes as text: UTF-8, a byte order mark left out.

    Raises
    ------
    ConfigError
        For another encoding, with the place of the first byte that does not fit.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or content[:2].count(b"\0") == 1:
        raise ConfigError("it is UTF-16, as some editors of Windows write it: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"it is not UTF-8: byte 0x{content[error.start]:02x} in line {line}; save it as UTF-8 (iconv -f latin1 -t utf8)"
        ) from error


def kind_of(mode: int) -> str:
    """Return what something is that is no file, by its mode (``st_mode``): "a folder", "a pipe"."""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")
