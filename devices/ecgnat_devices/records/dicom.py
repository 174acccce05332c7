"""DICOM waveforms (PS3.3 C.10.9, the ECG objects of A.34), read with pydicom.

Read are all channels of all original multiplex groups, each with its own sensitivity, baseline, unit and time; groups that stand
for one after another are joined, with the holes between. Left out are derived groups (median beats). Refused by name: compressed
data sets, mu-law and A-law samples, files without a waveform.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pydicom
import pydicom.config
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ecgnat_devices.records.contents import Asked, Contents, wrong
from ecgnat_devices.records.lead_codes import mdc_lead, scp_lead
from ecgnat_devices.records.pieces import Piece, contents_of, rate_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# What pydicom warns of is either of no weight here (names, dates) or an error below.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
warnings.filterwarnings("ignore", module=r"pydicom\b")

__all__ = ["open_dicom"]

_MOST_BYTES = 2**28
"""Largest file: a day of three leads at 500 Hz has 259 MB. pydicom holds it in memory."""

_TYPES = {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4", "SV": "i8", "UV": "u8"}
"""Waveform sample interpretations and what they are (PS3.3 C.10.9.1.5)."""

_LAWS = {"MB": "mu-law", "AB": "A-law"}
_LEAD_NUMBER = re.compile(r"(?:5\.6\.3-9-|2:)(\d{1,5})")
"""A lead in the coding schemes SCPECG and MDC (PS3.16, CID 3001)."""

_BEAT = re.compile("median|average|beat|template", re.IGNORECASE)


def open_dicom(path: Path, asked: Asked) -> Contents:
    """Read the waveforms of a DICOM file.

    Raises
    ------
    DeviceError
        If it holds none, or one that cannot be read.
    """
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise wrong(path, f"has {size} bytes: DICOM is read up to {_MOST_BYTES}; convert it to EDF or WFDB")
    try:
        return _contents(path)
    except InvalidDicomError:
        raise wrong(path, "is no DICOM file: DICM does not stand at byte 128") from None
    except (BytesLengthException, NotImplementedError) as error:
        raise wrong(path, f"cannot be read: it is damaged ({error})") from error


def _contents(path: Path) -> Contents:
    if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:  # unpacked at once, to whatever size
        raise wrong(path, "is a compressed data set (deflated): save it as Explicit VR Little Endian")
    data = pydicom.dcmread(path)
    groups = list(data.get("WaveformSequence") or [])
    if not groups:
        kind = data.get("SOPClassUID")
        raise wrong(path, "holds no waveform" + ("" if kind is None else f": it is {kind.name}"))
    order = ">" if data.original_encoding[1] is False else "<"
    return contents_of(path, [piece for group in _rhythm(groups) for piece in _channels(path, group, order)])


def _rhythm(groups: list[Dataset]) -> list[Dataset]:
    """Return the groups as they were recorded, without those that were computed from them."""
    no_beats = [group for group in groups if not _BEAT.search(str(group.get("MultiplexGroupLabel") or ""))] or groups
    return [group for group in no_beats if str(group.get("WaveformOriginality", "")).strip() == "ORIGINAL"] or no_beats


def _channels(path: Path, group: Dataset, order: str) -> Iterator[Piece]:
    kind = str(group.get("WaveformSampleInterpretation", "")).strip()
    if kind in _LAWS:
        raise wrong(path, f"has its samples by {_LAWS[kind]}, which is sound and no ECG: it is not read")
    if kind not in _TYPES:
        raise wrong(path, f"has samples of the kind {kind[:10] or 'nothing'}: {', '.join(_TYPES)} are read")
    numbers = np.dtype(order + _TYPES[kind])
    if (bits := int(group.WaveformBitsAllocated)) != 8 * numbers.itemsize:
        raise wrong(path, f"has {bits} bits for a sample of the kind {kind}, which has {8 * numbers.itemsize}: it is damaged")
    definitions = list(group.ChannelDefinitionSequence)
    channels, total, data = int(group.NumberOfWaveformChannels), int(group.NumberOfWaveformSamples), group.WaveformData
    if channels < 1 or total < 0 or len(definitions) != channels:
        raise wrong(path, f"has {channels} channels of {total} samples, and describes {len(definitions)}: it is damaged")
    if len(data) < channels * total * numbers.itemsize:
        there = len(data) // (channels * numbers.itemsize)
        raise wrong(path, f"should have {total} samples of {channels} channels, but {there} are there: it was cut")
    fs = rate_of(path, float(group.SamplingFrequency))
    offset_s = float(group.get("MultiplexGroupTimeOffset") or 0) / 1000
    padding = bytes(group.get("WaveformPaddingValue") or b"")[: numbers.itemsize]
    missing = int(np.frombuffer(padding, numbers)[0]) if len(padding) == numbers.itemsize else None
    samples = np.frombuffer(data, numbers, count=channels * total).reshape(total, channels)
    for i, channel in enumerate(definitions):
        skew_s = float(channel.get("ChannelTimeSkew") or 0) + float(channel.get("ChannelSampleSkew") or 0) / fs
        yield Piece(
            _name(channel),
            fs,
            _unit(channel),
            samples[:, i],
            gain=_number(channel, "ChannelSensitivity", 1.0) * _number(channel, "ChannelSensitivityCorrectionFactor", 1.0),
            baseline=_number(channel, "ChannelBaseline", 0.0),
            missing=missing,
            start_s=offset_s + skew_s,
        )


def _number(channel: Dataset, keyword: str, default: float) -> float:
    value = channel.get(keyword)
    return default if value in (None, "") else float(value)


def _unit(channel: Dataset) -> str:
    """Return the unit of the sensitivity, a code of UCUM; a channel without a sensitivity has numbers without a unit."""
    units = channel.get("ChannelSensitivityUnitsSequence")
    return str(units[0].get("CodeValue", "")).strip() if units else ""


def _name(channel: Dataset) -> str:
    """Return the lead by its code, or what the channel is called."""
    sources = channel.get("ChannelSourceSequence")
    source = sources[0] if sources else {}
    code = str(source.get("CodeValue", "")).strip()
    match = _LEAD_NUMBER.fullmatch(code)
    by_code = scp_lead(int(match[1])) if match else mdc_lead(code) if code.startswith("MDC_") else ""
    return by_code or str(channel.get("ChannelLabel") or source.get("CodeMeaning") or code).strip()
