"""GE ECG as XML: the export of MUSE (root RestingECG, defined in restecg.dtd) and that of CardioSoft (root CardiologyXML).

MUSE has base64 of 16 bit little-endian samples, in the unit and with the step that each lead states. It keeps eight leads; limb
leads that follow from I and II are added. CardioSoft has its numbers as text. Read is the rhythm: median beats, measurements and
the full disclosure of an exercise test are not.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ecgnat_devices.records.contents import Asked, Contents, wrong
from ecgnat_devices.records.lead_codes import with_limb_leads
from ecgnat_devices.records.markup import bytes_of, number_of, numbers_of, read_xml, text_of
from ecgnat_devices.records.pieces import Piece, contents_of

__all__ = ["open_muse"]

_NOT_READ = ("RestingECGMeasurements", "OriginalRestingECGMeasurements", "QRSTimesTypes", "MedianSamples", "FullDisclosure")


def open_muse(path: Path, asked: Asked) -> Contents:
    """Read an ECG of MUSE or CardioSoft.

    Raises
    ------
    DeviceError
        If it holds no rhythm, or one that cannot be read.
    """
    root = read_xml(path, ("RestingECG", "CardiologyXML"), leave_out=_NOT_READ)
    notes: list[str] = []
    if root.tag == "RestingECG":
        waveforms = [one for one in root.findall("Waveform") if text_of(one, "WaveformType").lower() != "median"]
        pieces = [piece for one in waveforms for piece in with_limb_leads(list(_muse(path, one, notes)))]
    else:
        pieces = [piece for strip in root.findall("StripData") for piece in _cardiosoft(path, strip)]
    if not pieces:
        raise wrong(path, "holds no rhythm")
    return contents_of(path, pieces, notes)


def _muse(path: Path, waveform: Element, notes: list[str]) -> Iterator[Piece]:
    base = number_of(path, text_of(waveform, "SampleBase"), "SampleBase")
    exponent = number_of(path, text_of(waveform, "SampleExponent") or "0", "SampleExponent")
    if not -12 <= exponent <= 12:
        raise wrong(path, f"says SampleExponent is {exponent:g}: it is damaged")
    fs = base * 10**exponent
    for lead in waveform.findall("LeadData"):
        name = text_of(lead, "LeadID")
        size = text_of(lead, "LeadSampleSize") or "2"
        if size != "2":
            raise wrong(path, f"lead {name[:20]} has samples of {size[:10]} bytes: only 2 are read")
        data = bytes_of(path, text_of(lead, "WaveFormData"), f"lead {name[:20]}")
        raw = np.frombuffer(data, dtype="<i2", count=len(data) // 2)
        count = number_of(path, text_of(lead, "LeadSampleCountTotal") or str(len(raw)), "LeadSampleCountTotal")
        if not 0 <= count <= len(raw):
            raise wrong(path, f"lead {name[:20]} should have {count:.15g} samples, but {len(raw)} are there: it was cut")
        checksum = text_of(lead, "LeadDataCRC32")
        if checksum.isdecimal() and int(checksum) != zlib.crc32(data):
            notes.append(f"the checksum of lead {name} does not fit: it may be damaged")
        step = text_of(lead, "LeadAmplitudeUnitsPerBit")
        unit = text_of(lead, "LeadAmplitudeUnits") if step else ""  # counts of the converter
        if text_of(lead, "LeadOff").upper() == "TRUE":
            yield Piece(name, fs, unit, np.full(int(count), np.nan))
        else:
            yield Piece(name, fs, unit, raw[: int(count)], number_of(path, step or "1", "LeadAmplitudeUnitsPerBit"))


def _cardiosoft(path: Path, strip: Element) -> Iterator[Piece]:
    fs = number_of(path, text_of(strip, "SampleRate"), "SampleRate")
    resolution = strip.find("Resolution")
    stated = resolution is not None and resolution.get("units") == "uVperLsb"
    gain = number_of(path, text_of(resolution), "Resolution") if stated else 1.0
    count = number_of(path, text_of(strip, "ChannelSampleCountTotal"), "ChannelSampleCountTotal")
    for data in strip.findall("WaveformData"):
        name = data.get("lead", "").strip()
        raw = numbers_of(path, (data.text or "").replace(",", " "), f"lead {name[:20]}")
        if len(raw) < count:
            raise wrong(path, f"lead {name[:20]} should have {count:.15g} samples, but {len(raw)} are there: it was cut")
        yield Piece(name, fs, "uV" if stated else "", raw[: int(count)], gain)
