"""A device of one's own: int16 samples over TCP become a monitored bed. Run: python examples/tcp_device.py"""

import asyncio
from collections.abc import AsyncIterator

import numpy as np

import ecgnat_stream as ecgnat
from ecgnat_devices.simulator import Patient, Signal


async def amplifier(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send one lead at 250 Hz, 5 uV a step: what stands in for your hardware."""
    patient = Patient(Signal(fs=250, leads=("II",), script="sinus"))
    while not writer.is_closing():
        writer.write((patient.read(25)[0] / 0.005).astype("<i2").tobytes())
        await asyncio.sleep(0.1)


async def main() -> None:
    """Serve, connect, and print what the monitor says until it knows the rhythm."""
    server = await asyncio.start_server(amplifier, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def samples() -> AsyncIterator[np.ndarray]:
        reader, _ = await asyncio.open_connection("127.0.0.1", port)
        while True:
            yield np.frombuffer(await reader.readexactly(50), "<i2").reshape(1, -1) * np.float32(0.005)

    device = ecgnat.stream_device(samples, fs=250, leads=("II",), name="amplifier")
    async with server, ecgnat.Monitor(devices={"bed-1": device}) as monitor:
        async for event in monitor.events(ecgnat.Rhythm):
            print(event.bed, event.at_s, event.text)
            break


asyncio.run(main())
