"""Philips ECG XML (root restingecgdata, SierraECG and PhilipsECG 1.03 to 1.04.02), as text, base64 and with XLI compression.

Samples are 16 bit, one lead after another, with the step in microvolts that the signal characteristics state. XLI is nowhere
published; what is read is what the open readers of the format agree on: per lead a header of eight bytes, LZW with codes of ten
bits, high and low bytes apart, second differences; III, aVR, aVL and aVF as what their value by I and II leaves.
"""

from __future__ import annotations

import struct
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from ecgnat_devices.records.contents import Asked, Contents, wrong
from ecgnat_devices.records.markup import bytes_of, number_of, numbers_of, read_xml, text_of
from ecgnat_devices.records.pieces import Piece, contents_of

__all__ = ["open_philips"]

_NOT_READ = ("measurements", "interpretations", "repbeats", "crossleadmeasurements")
_TWELVE = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
_MOST_CHANNELS, _MOST_SAMPLES = 64, 2**22

_CODE_BITS, _LAST_CODE = 10, 1022
"""XLI: bits of a code, and the largest that stands for bytes; 1023 ends a lead."""


def open_philips(path: Path, asked: Asked) -> Contents:
    """Read a resting ECG of Philips.

    Raises
    ------
    DeviceError
        If it holds no samples, or has them in a form that is not read.
    """
    root = read_xml(path, ("restingecgdata",), leave_out=_NOT_READ)
    characteristics = root.find("dataacquisition/signalcharacteristics")
    waveforms = next(root.iter("parsedwaveforms"), None)
    if characteristics is None or waveforms is None:
        raise wrong(path, "has no signal characteristics, or no parsed waveforms")

    def stated(*places: str) -> str:
        """Return what the waveforms or the characteristics say: versions differ in where."""
        said = (waveforms.get(place) or text_of(characteristics, place) for place in places)
        return next((text for text in said if text), "")

    if (bits := stated("nbitspersample", "bitspersample") or "16") != "16":
        raise wrong(path, f"has samples of {bits[:10]} bits: only 16 are read")
    if stated("signalsigned").lower() == "false":
        raise wrong(path, "has samples without a sign: they are not read")
    fs = number_of(path, stated("samplespersecond", "samplingrate"), "samplingrate")
    step = stated("resolution", "signalresolution")
    unit, gain = ("uV", number_of(path, step, "resolution")) if step else ("", 1.0)
    baseline = -gain * number_of(path, stated("signaloffset") or "0", "signaloffset")
    labels = waveforms.get("leadlabels", "").split()
    channels = stated("numberofleads", "numberchannelsallocated", "numberchannelsvalid") or str(len(labels))
    leads = number_of(path, channels, "the number of leads")
    if not 1 <= leads <= _MOST_CHANNELS:
        raise wrong(path, f"says that it has {leads:g} leads: 1 to {_MOST_CHANNELS} are read")
    if not labels and stated("acquisitiontype", "leadset") in ("STD-12", "10-WIRE"):
        labels = list(_TWELVE)
    names = [labels[i] if i < len(labels) else f"channel {i + 1}" for i in range(int(leads))]
    length_ms = number_of(path, waveforms.get("durationperchannel", ""), "durationperchannel")
    count = length_ms * fs / 1000
    if not 1 <= count <= _MOST_SAMPLES:
        raise wrong(path, f"says that it has {length_ms:g} ms at {fs:g} Hz: 1 to {_MOST_SAMPLES} samples are read")
    rows = _rows(path, waveforms, len(names), round(count))
    if _compression(waveforms) and tuple(names[:6]) == _TWELVE[:6]:
        _complete(rows)
    return contents_of(path, [Piece(name, fs, unit, row, gain, baseline) for name, row in zip(names, rows, strict=True)])


def _compression(waveforms: Element) -> str:
    if waveforms.get("compressflag", "").lower() == "false":
        return ""
    method = waveforms.get("compression") or waveforms.get("compressmethod") or ""
    return "" if method.lower() in ("uncompressed", "none") else method


def _rows(path: Path, waveforms: Element, leads: int, count: int) -> list[NDArray[np.int16]]:
    """Return the samples of each lead."""
    encoding, method = waveforms.get("dataencoding", ""), _compression(waveforms)
    text = waveforms.text or ""
    if method not in ("", "XLI"):
        raise wrong(path, f"is compressed with {method[:20]}: only XLI is read")
    if encoding == "Plain" and not method:
        numbers = numbers_of(path, text, "the waveforms")
        if not np.all(np.abs(numbers) < 2**15):
            raise wrong(path, "has numbers that are no samples of 16 bits")
        samples = numbers.astype(np.int16)
    elif encoding == "Base64" and not method:
        data = bytes_of(path, text, "the waveforms")
        samples = np.frombuffer(data, dtype="<i2", count=len(data) // 2).astype(np.int16)
    elif encoding == "Base64":
        return _xli(path, bytes_of(path, text, "the waveforms"), leads, count)
    else:
        raise wrong(path, f"has its waveforms as {encoding[:20] or 'nothing that is named'}: Base64 and Plain are read")
    if len(samples) < leads * count:
        raise wrong(path, f"should have {leads} leads of {count} samples, but {len(samples)} samples are there: it was cut")
    return list(samples[: leads * count].reshape(leads, count))


def _xli(path: Path, data: bytes, leads: int, count: int) -> list[NDArray[np.int16]]:
    rows: list[NDArray[np.int16]] = []
    at = 0
    while len(rows) < leads:
        if at + 8 > len(data):
            raise wrong(path, f"should have {leads} leads, but ends after {len(rows)}: it was cut")
        size, _, first = struct.unpack_from("<ihh", data, at)
        if not 0 < size <= 4 * count + 64:  # ten bits stand for one byte or more
            raise wrong(path, f"says that lead {len(rows) + 1} has {size} bytes: it is damaged")
        chunk = data[at + 8 : at + 8 + size]
        if len(chunk) != size:
            raise wrong(path, f"ends within lead {len(rows) + 1}: it was cut")
        halves = _unpack(path, chunk, most=2 * count + 2)
        if len(halves) < 2 * count:
            raise wrong(path, f"has {len(halves) // 2} samples in lead {len(rows) + 1}, not {count}: it is damaged")
        length = (len(halves) + 1) // 2
        coded = np.frombuffer(halves.ljust(2 * length, b"\0"), dtype=np.uint8).reshape(2, length)
        rows.append(_sum_twice((coded[0].astype(np.uint16) << 8 | coded[1]).view(np.int16), first)[:count])
        at += 8 + size
    return rows


def _unpack(path: Path, chunk: bytes, most: int) -> bytes:
    """Return what LZW codes stand for; no more than ``most`` bytes, which is all that a lead has."""
    known = [bytes((byte,)) for byte in range(256)]
    parts: list[bytes] = []
    size, before = 0, b""
    for code in _codes(chunk):
        if code > _LAST_CODE:
            break
        if code < len(known):
            now = known[code]
        elif code == len(known) and before:
            now = before + before[:1]
        else:
            raise wrong(path, f"has an LZW code {code} that stands for nothing: it is damaged")
        if before and len(known) <= _LAST_CODE:
            known.append(before + now[:1])
        before = now
        parts.append(now)
        size += len(now)
        if size > most:
            raise wrong(path, f"has a lead of more than {most // 2} samples: it is damaged")
    return b"".join(parts)


def _codes(chunk: bytes) -> list[int]:
    """Return the codes of ten bits, the highest bit first; what is left at the end is none."""
    bits = np.unpackbits(np.frombuffer(chunk, dtype=np.uint8))
    whole = bits[: len(bits) // _CODE_BITS * _CODE_BITS].reshape(-1, _CODE_BITS)
    words = np.pad(whole, ((0, 0), (16 - _CODE_BITS, 0)))
    codes: list[int] = np.packbits(words, axis=1).view(">u2").ravel().tolist()
    return codes


def _sum_twice(coded: NDArray[np.int16], first: int) -> NDArray[np.int16]:
    """Return samples from their second differences, the first two as they are: x[i] = 2 x[i-1] - x[i-2] - d[i].

    d[2] is the number of the header, d[i] after it the number before less 64. All is done with 16 bits.
    """
    if len(coded) < 3:
        return coded
    x = coded.astype(np.int64)
    bend = -np.concatenate(([first], x[2:-1] - 64))
    slope = np.concatenate(([x[1] - x[0]], bend)).cumsum()
    return np.concatenate(([x[0]], x[0] + slope.cumsum())).astype(np.int16)


def _complete(rows: list[NDArray[np.int16]]) -> None:
    """Put back what XLI takes from the limb leads."""
    one, two, three, avr, avl, avf = (row.astype(np.int64) for row in rows[:6])
    three = two - one - three
    for row, values in zip(
        rows[2:6], (three, -avr - (one + two) // 2, (one - three) // 2 - avl, (two + three) // 2 - avf), strict=True
    ):
        row[:] = values.astype(np.int16)
