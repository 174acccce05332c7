"""``ecgnat doctor --security FILE.toml``: what a configuration leaves open, how bad that is, and what to do.

It reads the configuration and the permissions of the files that it names; it connects to nothing and opens no recording.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from ecgnat_stream.exposure import is_local
from ecgnat_stream.places import broker_address
from ecgnat_stream.words import counted

if TYPE_CHECKING:
    from ecgnat_stream.config import Config

__all__ = ["Finding", "examine_security", "open_places"]

Severity = Literal["high", "medium", "low"]

_STYLES = {"high": "bold red", "medium": "yellow", "low": "cyan"}
_WIDE = 110
"""From so many columns on findings stand in a table; in a narrower one its cells have two words a line."""

_FILES = 1_000
"""Files of a folder that are looked at."""

_SECRETS = ("password", "secret", "token", "passwd", "api_key", "apikey", "credential")


class Finding(NamedTuple):
    """One thing that is open.

    Parameters
    ----------
    severity
        ``high``: somebody outside reads, forges or silences. ``medium``: another account of this machine does, or a layer is
        missing. ``low``: good to know.
    """

    severity: Severity
    where: str
    what: str
    do: str


def examine_security(path: Path, *, as_json: bool) -> int:
    """Print every finding; return 1 if one is of high or medium severity.

    Raises
    ------
    ConfigError
        For a configuration that cannot be read.
    """
    from ecgnat_stream.config import load_config

    found = sorted(open_places(load_config(path), path), key=lambda finding: list(_STYLES).index(finding.severity))
    if as_json:
        print(json.dumps({"configuration": str(path), "findings": [finding._asdict() for finding in found]}, indent=2))
    else:
        _show(found)
        counts = ", ".join(f"{sum(one.severity == severity for one in found)} {severity}" for severity in _STYLES)
        print(f"{path}: {counts}; docs/security.md says more", file=sys.stderr)
    return int(any(finding.severity != "low" for finding in found))


def _show(found: list[Finding]) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console(markup=False, highlight=False)
    if console.width >= _WIDE and found:
        table = Table("", "where", "what is open", "what to do")
        for finding in found:
            table.add_row(Text(finding.severity, _STYLES[finding.severity]), *(Text(text) for text in finding[1:]))
        console.print(table)
        return
    for severity, where, what, do in found:
        console.print(Text.assemble((f"{severity:6}", _STYLES[severity]), f"  {where}"))
        for text in (what, f"-> {do}"):
            console.print(Padding(Text(text), (0, 0, 0, 8)))


def open_places(config: Config, path: Path) -> Iterator[Finding]:
    """Yield what a configuration leaves open, stage by stage."""
    yield from _process(path)
    yield from _beds(config, path)
    yield from _mqtt(config)
    yield from _zmq(config)
    yield from _results(config)
    yield from _missing(config)


def _process(path: Path) -> Iterator[Finding]:
    if os.geteuid() == 0:
        yield Finding(
            "medium",
            "account",
            "this runs as root: a defect in a decoder would have the whole machine",
            "run it as an account of its own, as examples/ecgnat.service does",
        )
    if _mode(path) & 0o022 and _reached(path, 0o022):
        yield Finding("high", str(path), "others can change the configuration", f"chmod go-w {path}")


def _beds(config: Config, path: Path) -> Iterator[Finding]:
    if not _mode(path) & stat.S_IROTH or not _reached(path, stat.S_IROTH):
        return
    for bed in config.bed:
        for name in bed.options:
            if any(secret in name.lower() for secret in _SECRETS):
                what = f"options.{name} stands in a file that every account of this machine can read"
                yield Finding("high", f"bed {bed.id}", what, f"chmod 600 {path}")


def _mqtt(config: Config) -> Iterator[Finding]:
    if config.mqtt is None:
        return
    from ecgnat_stream.sink.mqtt.config import PASSWORD, USER

    mqtt = config.mqtt
    yield from _secret("mqtt.credentials_file", mqtt.credentials_file)
    yield from _secret("mqtt.key_file", mqtt.key_file)
    if mqtt.embedded:
        yield _embedded(is_local(broker_address(mqtt.url).host), mqtt.insecure)
        return
    broker = broker_address(mqtt.url)
    local, encrypted = is_local(broker.host), broker.scheme == "mqtts"
    if not encrypted and not local:
        what = f"no encryption on the way to {broker.host}: the network reads patients' data and the password, and can forge"
        yield Finding("high", "mqtt.url", what, "use mqtts:// with ca_file")
    if not (broker.user or mqtt.credentials_file or os.environ.get(USER) or mqtt.cert_file):
        severity: Severity = "low" if local else "high"
        what = "no account: the broker lets anybody in, who can read all beds, forge alarms and pause them"
        yield Finding(
            severity, "mqtt", what, f"accounts and an access list at the broker; credentials_file, or {USER} and {PASSWORD}"
        )
    if encrypted and not mqtt.ca_file:
        what = "every authority that the system trusts may vouch for the broker"
        yield Finding("low", "mqtt.ca_file", what, "name the authority of your own brokers")
    what = "whoever may publish to .../alarm/command can acknowledge and pause the alarms of a bed"
    yield Finding("low", "mqtt commands", what, "let only those write there who may: the access list in docs/interfaces.md")


def _embedded(local: bool, insecure: bool) -> Finding:
    if local:
        what = "every account of this machine can read all beds, forge alarms and pause them at the embedded broker"
        return Finding("low", "mqtt.embedded", what, "for a ward use mosquitto with accounts and an access list")
    then = "" if insecure else "; `ecgnat run` refuses this"
    what = f"whoever reaches the embedded broker can read all beds, forge alarms and pause them: it knows no accounts{then}"
    return Finding("high", "mqtt.embedded", what, "listen at 127.0.0.1, or use mosquitto with accounts and TLS")


def _zmq(config: Config) -> Iterator[Finding]:
    if config.zmq is None:
        return
    from ecgnat_stream.sink.zmq.config import host_of

    zmq = config.zmq
    yield from _secret("zmq.secret_key_file", zmq.secret_key_file)
    local, keys = is_local(host_of(zmq.bind)), bool(zmq.secret_key_file)
    if not keys and not local:
        then = "" if zmq.insecure else "; `ecgnat run` refuses this"
        what = f"whoever reaches {zmq.bind} can read every bed, unencrypted{then}"
        yield Finding("high", "zmq.bind", what, "set secret_key_file and clients_dir, or bind 127.0.0.1")
    if not keys and local and zmq.bind.startswith("tcp"):
        what = "every account of this machine can read every bed"
        yield Finding("low", "zmq.bind", what, "bind ipc:// in a folder of mode 0700, or set secret_key_file and clients_dir")
    if keys and not zmq.clients_dir:
        what = "whoever knows the public key of this publisher is let in"
        yield Finding("medium", "zmq.clients_dir", what, "name a folder with the public keys of your subscribers")
    if zmq.clients_dir and (folder := Path(zmq.clients_dir)).is_dir() and _mode(folder) & 0o022 and _reached(folder, 0o022):
        yield Finding("high", "zmq.clients_dir", "others can add keys, and are let in by them", f"chmod go-w {folder}")
    if zmq.insecure and (keys or local):
        yield Finding("low", "zmq.insecure", "is set and not needed", "take it out: it would hide a later mistake")


def _results(config: Config) -> Iterator[Finding]:
    if config.history is not None:
        path = Path(config.history.path)
        for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
            if file.exists() and _mode(file) & stat.S_IROTH and _reached(file, stat.S_IROTH):
                yield Finding("medium", "history.path", f"every account can read {file.name}", f"chmod 600 {file}")
    if config.record is not None and (folder := Path(config.record.directory)).is_dir() and _reached(folder, stat.S_IXOTH):
        if not _mode(folder) & 0o005:
            return
        files = [file for file in islice(folder.rglob("*"), _FILES) if file.is_file()]
        readable = sum(bool(_mode(file) & stat.S_IROTH) for file in files)
        if readable:
            what = f"every account can read recordings: {readable} of {counted(len(files), 'file')} looked at"
            yield Finding("medium", "record.directory", what, f"chmod -R go= {folder}")
        else:
            what = "every account can list the folder: names of beds, and when they were monitored"
            yield Finding("low", "record.directory", what, f"chmod 700 {folder}")


def _missing(config: Config) -> Iterator[Finding]:
    if config.mqtt is None and config.zmq is None:
        what = "alarms leave this machine nowhere: only who sits at the dashboard, or reads standard output, hears them"
        yield Finding("low", "sinks", what, "set [mqtt]; docs/interfaces.md")
    if config.history is None:
        what = "nobody can find out afterwards which alarms were on, and who acknowledged or paused them"
        yield Finding("low", "history", what, 'set [history] path = "alarms.db"')
    without = ["the worker" if name.endswith("/") else name for name, receiver in config.receivers.items() if not receiver]
    if config.mqtt is not None and without:
        what = f"no receiver has to confirm the alarms of {_few(without)}: one that is gone is not noticed"
        yield Finding("low", "mqtt.confirm", what, "name the receiver that must confirm")


def _few(names: list[str]) -> str:
    """Return the first three names, and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _secret(where: str, name: str) -> Iterator[Finding]:
    """Yield who besides its owner can read or change a secret file."""
    if not name or not (path := Path(name)).exists():
        return
    mode, about = _mode(path), path.stat()
    if mode & stat.S_IROTH and _reached(path, stat.S_IROTH):
        yield Finding("high", where, f"every account of this machine can read {path}", f"chmod 600 {path}")
    elif mode & stat.S_IRGRP and _reached(path, stat.S_IRGRP):
        yield Finding("low", where, f"the group of {path} can read it", f"chmod 600 {path}, if the group has other members")
    if mode & 0o022 and _reached(path, 0o022):
        yield Finding("high", where, f"others can change {path}", f"chmod go-w {path}")
    if about.st_uid not in (0, os.geteuid()):
        yield Finding(
            "medium",
            where,
            f"{path} belongs to another account, which can change it",
            f"chown it to this account or root: {path}",
        )


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0


def _reached(path: Path, bits: int) -> bool:
    """Return whether the accounts that ``bits`` speak of pass every folder on the way to a file."""
    passes = (stat.S_IXOTH if bits & 0o007 else 0) | (stat.S_IXGRP if bits & 0o070 else 0)
    return all(_mode(folder) & passes for folder in path.resolve().parents)
