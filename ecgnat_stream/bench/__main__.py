"""The process of one trial: a ``LiveTask`` comes in on standard input, a ``Trial`` goes out on standard output, both as JSON."""

import asyncio
import sys

import msgspec

from ecgnat_stream.bench.live import LiveTask, run_live

if __name__ == "__main__":
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=LiveTask)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(run_live(task))))
