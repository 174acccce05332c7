"""Who can reach what listens here: this machine only, or everybody who can send it a packet.

What listens beyond this machine without keys or accounts is refused, unless the configuration says ``insecure = true``; then it
is warned about at every start.
"""

from __future__ import annotations

import logging
from ipaddress import IPv6Address, ip_address

from ecgnat_stream.errors import ConfigError

__all__ = ["is_local", "refuse_exposed"]

_log = logging.getLogger(__name__)


def is_local(host: str) -> bool:
    """Return whether only this machine reaches an address: ``localhost``, 127.0.0.0/8, ::1; other names are not looked up."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def refuse_exposed(where: str, host: str, secured: bool, insecure: bool, *, instead: str) -> None:
    """Let nothing listen beyond this machine without keys or accounts, unless that is said twice; then warn.

    Parameters
    ----------
    where
        The setting that names the address, for example ``zmq.bind``; ``insecure`` is in the same table.
    secured
        Whether peers are known by keys or accounts.
    instead
        What to set, as the end of a sentence: ``set zmq.secret_key_file``.

    Raises
    ------
    ConfigError
        If it is exposed and ``insecure`` is not set.
    """
    if secured or is_local(host):
        return
    open_to = f"{where}: {host or '*'} is reached from other machines, and whoever reaches it is let in, without key or account"
    if not insecure:
        table = where.partition(".")[0]
        raise ConfigError(f"{open_to}; use 127.0.0.1, {instead}, or set insecure = true in [{table}] if that is meant")
    _log.warning("%s (insecure = true)", open_to)
