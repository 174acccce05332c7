"""Certificates and keys of a client: read at the start, never asking anybody, and named when they cannot be used."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.sink.mqtt import MqttConfig
from ecgnat_stream.sink.mqtt.config import broker_access

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two pairs of certificate and key, and the first key again with a pass phrase."""
    folder = tmp_path_factory.mktemp("keys")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("own", "other"):
        openssl("req", "-x509", "-days", "2", "-subj", f"/CN={name}", *curve, "-keyout", f"{name}.key", "-out", f"{name}.pem")
    openssl("pkcs8", "-topk8", "-v2", "aes256", "-passout", "pass:geheim", "-in", "own.key", "-out", "locked.key")
    openssl("ec", "-aes256", "-passout", "pass:geheim", "-in", "own.key", "-out", "locked-old.key")
    (folder / "both.pem").write_bytes((folder / "own.pem").read_bytes() + (folder / "locked.key").read_bytes())
    (folder / "text").write_text("no key\n", encoding="utf-8")
    (folder / "empty").touch()
    os.mkfifo(folder / "pipe")
    return folder


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"cert_file": "own.pem", "key_file": "locked.key"}, r"mqtt\.key_file: .*locked\.key is protected by a pass phrase"),
        ({"cert_file": "own.pem", "key_file": "locked-old.key"}, r"mqtt\.key_file: .*locked-old\.key is protected"),
        ({"cert_file": "both.pem"}, r"mqtt\.cert_file: .*both\.pem is protected by a pass phrase"),
        ({"cert_file": "own.pem", "key_file": "other.key"}, r"mqtt\.cert_file: .*own\.pem and mqtt\.key_file .*mismatch"),
        ({"cert_file": "own.pem", "key_file": "text"}, r"mqtt\.cert_file: .*no certificate and the key"),
        ({"cert_file": "text", "key_file": "own.key"}, r"mqtt\.cert_file: "),
        ({"cert_file": "own.pem"}, r"mqtt\.cert_file: "),
        ({"ca_file": "text"}, r"mqtt\.ca_file: .*holds no certificates"),
        ({"ca_file": "empty"}, r"mqtt\.ca_file: .*holds no certificates"),
        ({"ca_file": "own.key"}, r"mqtt\.ca_file: .*holds no certificates"),
        ({"ca_file": "pipe"}, r"mqtt\.ca_file: .*it is a pipe"),
        ({"ca_file": "."}, r"mqtt\.ca_file: .*it is a folder"),
        ({"cert_file": "own.pem", "key_file": "pipe"}, r"mqtt\.key_file: .*it is a pipe"),
        ({"ca_file": "nowhere"}, r"mqtt\.ca_file: cannot read .*No such file"),
    ],
)
def test_what_cannot_be_used_is_refused_at_the_start(files: dict[str, str], said: str, keys: Path) -> None:
    config = MqttConfig(url="mqtts://broker.example", **{name: str(keys / file) for name, file in files.items()})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=said) as caught:
        broker_access(config)
    assert "geheim" not in str(caught.value)


def test_what_can_be_used_is_taken(keys: Path) -> None:
    files = {"ca_file": f"{keys}/other.pem", "cert_file": f"{keys}/own.pem", "key_file": f"{keys}/own.key"}
    assert broker_access(MqttConfig(url="mqtts://broker.example", **files)).tls is not None  # type: ignore[arg-type]
