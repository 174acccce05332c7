"""How a client proves itself to a broker, and the broker to it: certificates and keys, read without ever asking anybody."""

from __future__ import annotations

import ssl

from aiomqtt import TLSParameters

from ecgnat_stream.errors import ConfigError

__all__ = ["tls_context"]


class _AskedError(Exception):
    """A key is protected by a pass phrase."""


def tls_context(files: TLSParameters) -> ssl.SSLContext:
    """Read the files of a TLS connection.

    Raises
    ------
    ConfigError
        Naming the setting, for a file that holds no certificate or key, or a key that does not belong to the
        certificate or has a pass phrase: nobody sits there who could type it.
    """
    try:
        context = ssl.create_default_context(cafile=files.ca_certs)
    except (OSError, ValueError) as error:
        raise ConfigError(f"mqtt.ca_file: {files.ca_certs} holds no certificates in PEM form ({_reason(error)})") from error
    if files.certfile is None:
        return context
    try:
        context.load_cert_chain(files.certfile, files.keyfile, password=_nobody_to_ask)
    except _AskedError as error:
        setting, name = ("mqtt.key_file", files.keyfile) if files.keyfile else ("mqtt.cert_file", files.certfile)
        raise ConfigError(
            f"{setting}: the key in {name} is protected by a pass phrase, and a monitor asks nobody: give it one without "
            f"(openssl pkey -in {name} -out plain.key; chmod 600 plain.key)"
        ) from error
    except (OSError, ValueError) as error:
        both = f"{files.certfile} and mqtt.key_file {files.keyfile}" if files.keyfile else files.certfile
        raise ConfigError(
            f"mqtt.cert_file: {both} are no certificate and the key that belongs to it, in PEM form ({_reason(error)})"
        ) from error
    return context


def _nobody_to_ask() -> str:
    raise _AskedError


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return reason.replace("_", " ").lower() if isinstance(reason, str) else getattr(error, "strerror", None) or str(error)
