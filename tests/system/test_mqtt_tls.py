"""MQTT over TLS: an authority of our own, client certificates, accounts from the environment or a file."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.events import Technical, Vitals
from ecgnat_stream.sink.mqtt import MqttConfig, MqttSink

HAVE_TOOLS = shutil.which("openssl") and shutil.which("mosquitto_passwd")

pytestmark = [
    pytest.mark.skipif(not HAVE_TOOLS, reason="openssl or mosquitto is not installed"),
    pytest.mark.timeout(60),
    # paho leaves the socket of a refused TLS client to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TOPIC = "ecg/v1/home/icu/1/vitals"


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def certificate(folder: Path, name: str, authority: str | None) -> None:
    """Make ``name.pem`` and ``name.key``, signed by an authority or by itself."""
    subject = ["-subj", f"/CN={name}", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    if authority is None:
        openssl(folder, "req", "-x509", "-days", "2", *subject, "-keyout", f"{name}.key", "-out", f"{name}.pem")
        return
    openssl(folder, "req", *subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    signer = ["-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial"]
    openssl(folder, "x509", "-req", "-days", "2", "-in", f"{name}.csr", *signer, "-extfile", "names", "-out", f"{name}.pem")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    certificate(folder, "authority", None)
    certificate(folder, "stranger", None)
    certificate(folder, "broker", "authority")
    certificate(folder, "monitor", "authority")
    accounts = ["mosquitto_passwd", "-b", "-c", str(folder / "accounts"), "monitor", "geheim"]
    subprocess.run(accounts, check=True, capture_output=True)
    return folder


@pytest.fixture
async def server(keys: Path, start_mosquitto: Any) -> Any:
    return await start_mosquitto(
        f"cafile {keys}/authority.pem\ncertfile {keys}/broker.pem\nkeyfile {keys}/broker.key\n"
        f"require_certificate true\nallow_anonymous false\npassword_file {keys}/accounts"
    )


@asynccontextmanager
async def monitor(keys: Path, port: int, **options: str) -> AsyncIterator[Bus]:
    bus = Bus()
    files = {"ca_file": f"{keys}/authority.pem", "cert_file": f"{keys}/monitor.pem", "key_file": f"{keys}/monitor.key"}
    config = MqttConfig(url=f"mqtts://localhost:{port}", linger_s=0.2, **(files | options))  # type: ignore[arg-type]
    sink = MqttSink(config, bus, ManualClock())
    running = asyncio.create_task(sink.run())
    try:
        yield bus
        bus.close()
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("source", ["environment", "file"])
async def test_a_monitor_with_certificate_and_account_is_let_in(
    source: str, server: Any, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {}
    if source == "environment":
        monkeypatch.setenv("ECGNAT_MQTT_USER", "monitor")
        monkeypatch.setenv("ECGNAT_MQTT_PASSWORD", "geheim")
    else:
        (tmp_path / "credentials").write_text("monitor:geheim\n")
        options = {"credentials_file": str(tmp_path / "credentials")}
    tls = ("--cafile", f"{keys}/authority.pem", "--cert", f"{keys}/monitor.pem", "--key", f"{keys}/monitor.key")
    async with monitor(keys, server.port, **options) as bus:
        bus.publish(Vitals(bed="home/icu/1", time=datetime(2026, 1, 1, tzinfo=UTC), heart_rate_bpm=60))
        ((topic, vitals),) = await server.subscribe(TOPIC, 1, *tls, "-u", "monitor", "-P", "geheim")
    assert (topic, vitals["heart_rate_bpm"]) == (TOPIC, 60)


@pytest.mark.parametrize(
    ("options", "password", "said"),
    [
        ({"ca_file": "stranger.pem"}, "geheim", "CERTIFICATE_VERIFY_FAILED"),
        ({"cert_file": "stranger.pem", "key_file": "stranger.key"}, "geheim", "the broker has"),
        ({"cert_file": "", "key_file": ""}, "geheim", "certificate"),
        ({}, "falsch", "ot authori"),
    ],
    ids=["strange broker", "strange monitor", "no certificate", "wrong password"],
)
async def test_strangers_are_kept_out_on_both_sides(
    options: dict[str, str], password: str, said: str, server: Any, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECGNAT_MQTT_USER", "monitor")
    monkeypatch.setenv("ECGNAT_MQTT_PASSWORD", password)
    changed = {name: f"{keys}/{file}" if file else "" for name, file in options.items()}
    async with monitor(keys, server.port, **changed) as bus:
        heard = bus.subscribe("test", Technical)
        async with asyncio.timeout(20):
            trouble = await heard.get()
    assert isinstance(trouble, Technical)
    assert (trouble.condition, trouble.present) == ("broker-lost", True)
    assert said in trouble.detail
    assert password not in trouble.detail
