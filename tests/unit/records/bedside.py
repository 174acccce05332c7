"""Files of bedside and wearable formats, written byte by byte from the standards, by nothing that reads them."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FS = 250.0
LEADS = ("II", "V1")
STEP_UV = 5.0

Samples = NDArray[np.float64]

PER_MV = {"nV": 1e6, "uV": 1e3, "mV": 1.0, "V": 1e-3}
SCP_NUMBERS = {"I": 1, "II": 2, "V1": 3, "V2": 4, "V5": 7, "III": 61, "aVR": 62, "aVL": 63, "aVF": 64}
ISHNE_NUMBERS = {"": 0, "I": 5, "II": 6, "III": 7, "aVR": 8, "V1": 11, "V5": 15}


def counts(samples: Samples) -> NDArray[np.int64]:
    """Return samples in mV in steps of 5 uV."""
    return np.round(samples * 1e3 / STEP_UV).astype(np.int64)


def crc(data: bytes) -> int:
    """Return the CRC-CCITT, bit by bit: polynomial 1021, begun with ones."""
    register = 0xFFFF
    for byte in data:
        register ^= byte << 8
        for _ in range(8):
            register = (register << 1 ^ 0x1021 if register & 0x8000 else register << 1) & 0xFFFF
    return register


# DICOM


def dicom(path: Path, samples: Samples, unit: str = "uV", *, fs: float = FS, leads: Sequence[str] = LEADS) -> Path:
    return dicom_file(path, [dicom_group(counts(samples), leads, unit, fs)])


def dicom_gap(path: Path, samples: Samples, start: int, stop: int) -> Path:
    steps = counts(samples)
    before, after = dicom_group(steps[:, :start], LEADS, "uV", FS), dicom_group(steps[:, stop:], LEADS, "uV", FS)
    after.MultiplexGroupTimeOffset = str(1000 * stop / FS)
    return dicom_file(path, [before, after])


def dicom_group(steps: NDArray[np.int64], leads: Sequence[str], unit: str, fs: float, label: str = "RHYTHM"):  # type: ignore[no-untyped-def]
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as Items

    group = Dataset()
    group.MultiplexGroupTimeOffset = "0"
    group.WaveformOriginality = "ORIGINAL" if label == "RHYTHM" else "DERIVED"
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = steps.shape
    group.SamplingFrequency = str(fs)
    group.MultiplexGroupLabel = label
    channels = []
    for lead in leads:
        source, units, channel = Dataset(), Dataset(), Dataset()
        source.CodeValue, source.CodingSchemeDesignator = f"5.6.3-9-{SCP_NUMBERS[lead]}", "SCPECG"
        source.CodeMeaning = f"Lead {lead} (somehow)"
        units.CodeValue, units.CodingSchemeDesignator, units.CodeMeaning = unit, "UCUM", unit
        channel.ChannelSourceSequence = Items([source])
        channel.ChannelSensitivity = f"{STEP_UV / 1e3 * PER_MV[unit]:.9g}"
        channel.ChannelSensitivityUnitsSequence = Items([units])
        channel.ChannelSensitivityCorrectionFactor, channel.ChannelBaseline, channel.ChannelSampleSkew = "1", "0", "0"
        channel.WaveformBitsStored = 16
        channels.append(channel)
    group.ChannelDefinitionSequence = Items(channels)
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
    group.add_new("WaveformData", "OW", steps.T.astype("<i2").tobytes())
    return group


def dicom_file(path: Path, groups, syntax: str = "1.2.840.10008.1.2.1") -> Path:  # type: ignore[no-untyped-def]
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.sequence import Sequence as Items
    from pydicom.uid import UID

    file = path.with_suffix(".dcm")
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(syntax)
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.9.1.1")
    meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    data = FileDataset(str(file), {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, "ECG"
    if groups:
        data.WaveformSequence = Items(groups)
    data.save_as(file, enforce_file_format=True)
    return file


# HL7 aECG


def aecg(path: Path, samples: Samples, unit: str = "uV", *, fs: float = FS, leads: Sequence[str] = LEADS) -> Path:
    return aecg_file(path, aecg_series(aecg_set(samples, unit, "20221122091000.000", fs, leads)))


def aecg_gap(path: Path, samples: Samples, start: int, stop: int) -> Path:
    after = f"202211220910{stop / FS:06.3f}"
    sets = aecg_set(samples[:, :start], "uV", "20221122091000.000") + aecg_set(samples[:, stop:], "uV", after)
    return aecg_file(path, aecg_series(sets))


def aecg_set(samples: Samples, unit: str, at: str, fs: float = FS, leads: Sequence[str] = LEADS) -> str:
    step = STEP_UV / 1e3 * PER_MV[unit]
    sequences = "".join(
        f'<component><sequence><code code="MDC_ECG_LEAD_{lead.upper()}" codeSystem="2.16.840.1.113883.6.24"/>'
        f'<value xsi:type="SLIST_PQ"><origin value="0" unit="{unit}"/><scale value="{step:.9g}" unit="{unit}"/>'
        f"<digits>{' '.join(map(str, row))}</digits></value></sequence></component>"
        for lead, row in zip(leads, counts(samples).tolist(), strict=True)
    )
    return (
        '<component><sequenceSet><component><sequence><code code="TIME_ABSOLUTE" codeSystem="2.16.840.1.113883.5.4"/>'
        f'<value xsi:type="GLIST_TS"><head value="{at}"/><increment value="{1 / fs:.9g}" unit="s"/></value></sequence>'
        "</component>"
        f"{sequences}</sequenceSet></component>"
    )


def aecg_series(sets: str, code: str = "RHYTHM") -> str:
    return f'<component><series><code code="{code}" codeSystem="2.16.840.1.113883.5.4"/>{sets}</series></component>'


def aecg_file(path: Path, series: str, before: str = "") -> Path:
    file = path.with_suffix(".xml")
    file.write_text(
        f'<?xml version="1.0" encoding="UTF-8"?>\n{before}<AnnotatedECG xmlns="urn:hl7-org:v3" '
        f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><id root="1.2.3"/><code code="93000"/>{series}</AnnotatedECG>\n'
    )
    return file


# SCP-ECG


def scp(path: Path, samples: Samples, unit: str = "nV", *, differences: int = 2, leads: Sequence[str] = LEADS) -> Path:
    rows = [scp_bits(scp_differences(row, differences)) for row in counts(samples).tolist()]
    sections = {
        1: bytes((255, 0, 0)),
        2: struct.pack("<H", 19999),
        3: scp_leads(leads, samples.shape[1]),
        6: scp_data(rows, differences),
    }
    return scp_file(path, sections)


def scp_differences(row: Sequence[int], order: int) -> list[int]:
    if order == 0:
        return list(row)
    if order == 1:
        return [row[0], *(row[i] - row[i - 1] for i in range(1, len(row)))]
    return [*row[:2], *(row[i] - 2 * row[i - 1] + row[i - 2] for i in range(2, len(row)))]


def scp_bits(values: Sequence[int]) -> bytes:
    """Return values by the default Huffman table of EN 1064, as they are drawn there."""
    text = ""
    for value in values:
        if value == 0:
            text += "0"
        elif abs(value) <= 8:
            text += "1" * abs(value) + ("01" if value < 0 else "00")
        elif -128 <= value <= 127:
            text += "1111111110" + f"{value & 0xFF:08b}"
        else:
            text += "1111111111" + f"{value & 0xFFFF:016b}"
    text += "0" * (-len(text) % 8)
    return bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))


def scp_leads(leads: Sequence[str], total: int, flags: int = 4, first: int = 1) -> bytes:
    numbers = [SCP_NUMBERS.get(lead, 0) for lead in leads]
    return bytes((len(leads), flags | len(leads) << 3)) + b"".join(
        struct.pack("<IIB", first, first + total - 1, number) for number in numbers
    )


def scp_data(rows: Sequence[bytes], differences: int, *, bimodal: int = 0, step_nv: int = 5000, interval_us: int = 4000) -> bytes:
    rows = [row + bytes(len(row) % 2) for row in rows]
    return (
        struct.pack("<HHBB", step_nv, interval_us, differences, bimodal)
        + struct.pack(f"<{len(rows)}H", *map(len, rows))
        + b"".join(rows)
    )


def scp_file(path: Path, sections: dict[int, bytes], version: int = 20) -> Path:
    file = path.with_suffix(".scp")
    made, pointers, at = b"", b"", 6 + 16 + 12 * 10
    for number in range(1, 12):
        body = sections.get(number)
        if body is None:
            pointers += struct.pack("<HII", number, 0, 0)
            continue
        body += bytes(len(body) % 2)
        section = scp_section(number, body, version)
        pointers += struct.pack("<HII", number, len(section), at + len(made) + 1)
        made += section
    zero = scp_section(0, struct.pack("<HII", 0, 16 + 12 * 10, 7) + pointers, version, b"SCPECG")
    record = struct.pack("<I", 6 + len(zero) + len(made)) + zero + made
    file.write_bytes(struct.pack("<H", crc(record)) + record)
    return file


def scp_section(number: int, body: bytes, version: int, reserved: bytes = bytes(6)) -> bytes:
    section = struct.pack("<HIBB", number, 16 + len(body), version, version) + reserved + body
    return struct.pack("<H", crc(section)) + section


# ISHNE


def ishne(path: Path, samples: Samples, unit: str = "nV", *, leads: Sequence[str] = LEADS) -> Path:
    return ishne_file(path, counts(samples), leads)


def ishne_gap(path: Path, samples: Samples, start: int, stop: int) -> Path:
    steps = counts(samples)
    steps[:, start:stop] = -32768
    return ishne_file(path, steps, LEADS)


def ishne_file(
    path: Path, steps: NDArray[np.int64], leads: Sequence[str], *, stated: int | None = None, variable: bytes = b"", fs: int = 250
) -> Path:
    file = path.with_suffix(".ecg")
    head = bytearray(522 - 10)

    def put(at: int, form: str, *values: object) -> None:
        struct.pack_into(f"<{form}", head, at - 10, *values)

    put(10, "iiii", len(variable), steps.shape[1] if stated is None else stated, 522, 522 + len(variable))
    put(26, "h40s40s20s", 1, b"Ada", b"Nobody", b"17")
    put(128, "hh3h3h3h3h", 2, 0, 1, 1, 1970, 31, 12, 2020, 1, 1, 2021, 23, 59, 58)
    put(156, "h", len(leads))
    for i in range(12):
        put(158 + 2 * i, "h", ISHNE_NUMBERS[leads[i]] if i < len(leads) else -9)
        put(182 + 2 * i, "h", 1 if i < len(leads) else -9)
        put(206 + 2 * i, "h", round(STEP_UV * 1e3) if i < len(leads) else -9)
    put(230, "h40sh", 0, b"digital", fs)
    block = bytes(head) + variable
    file.write_bytes(b"ISHNE1.0" + struct.pack("<H", crc(block)) + block + steps.T.astype("<i2").tobytes())
    return file


# Philips


def philips(path: Path, samples: Samples, unit: str = "uV", *, leads: Sequence[str] = LEADS) -> Path:
    data = base64.encodebytes(counts(samples).astype("<i2").tobytes()).decode()
    return philips_file(path, data, leads, samples.shape[1], 'dataencoding="Base64"')


def philips_xli(path: Path, samples: Samples, leads: Sequence[str] = LEADS) -> Path:
    """Write XLI; twelve leads have the limb leads as what is left of them."""
    rows = [[int(value) for value in row] for row in counts(samples)]
    if len(rows) >= 6:
        for i in range(len(rows[0])):
            one, two = rows[0][i], rows[1][i]
            three = rows[2][i]
            rows[2][i] = two - one - three
            rows[3][i] = -rows[3][i] - (one + two) // 2
            rows[4][i] = (one - three) // 2 - rows[4][i]
            rows[5][i] = (two + three) // 2 - rows[5][i]
    data = b"".join(xli_lead(row) for row in rows)
    form = 'dataencoding="Base64" compression="XLI"'
    return philips_file(path, base64.b64encode(data).decode(), leads, samples.shape[1], form)


def xli_lead(row: Sequence[int]) -> bytes:
    bends = [2 * row[i - 1] - row[i - 2] - row[i] for i in range(2, len(row))]
    words = [row[0], row[1], *(bend + 64 for bend in bends[1:]), 0]
    packed = b"".join(struct.pack(">h", word) for word in words)
    chunk = lzw(packed[0::2] + packed[1::2])
    return struct.pack("<ihh", len(chunk), 1, bends[0]) + chunk


def lzw(data: bytes) -> bytes:
    """Return LZW codes of ten bits; the table is full at 1022, and 1023 ends them (Welch, Computer 1984; 17: 8-19)."""
    table = {bytes([byte]): byte for byte in range(256)}
    codes, now = [], b""
    for byte in data:
        longer = now + bytes([byte])
        if longer in table:
            now = longer
            continue
        codes.append(table[now])
        if len(table) <= 1022:
            table[longer] = len(table)
        now = bytes([byte])
    text = "".join(f"{code:010b}" for code in [*codes, table[now], 1023])
    text += "0" * (-len(text) % 8)
    return bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))


def philips_file(path: Path, data: str, leads: Sequence[str], total: int, form: str, encoding: str = "UTF-16") -> Path:
    file = path.with_suffix(".xml")
    file.write_bytes(
        (
            f'<?xml version="1.0" encoding="{encoding}" standalone="no"?>\n'
            '<restingecgdata xmlns="http://www3.medical.philips.com"><documentinfo><documenttype>PhilipsECG</documenttype>'
            "<documentversion>1.04</documentversion></documentinfo><dataacquisition><signalcharacteristics>"
            f"<samplingrate>{FS:g}</samplingrate><signalresolution>{STEP_UV:g}</signalresolution>"
            "<acquisitiontype>STD-12</acquisitiontype><bitspersample>16</bitspersample><signaloffset>0</signaloffset>"
            f"<numberchannelsallocated>{len(leads)}</numberchannelsallocated></signalcharacteristics></dataacquisition>"
            f'<waveforms><parsedwaveforms durationperchannel="{1000 * total / FS:g}" nbitspersample="16" {form} '
            f'numberofleads="{len(leads)}" leadlabels="{" ".join(leads)}">{data}</parsedwaveforms></waveforms></restingecgdata>'
        ).encode(encoding)
    )
    return file


# GE


def muse(path: Path, samples: Samples, unit: str = "uV", *, leads: Sequence[str] = LEADS) -> Path:
    return muse_file(path, muse_waveform(samples, unit, leads))


def muse_waveform(samples: Samples, unit: str = "uV", leads: Sequence[str] = LEADS, kind: str = "Rhythm", off: str = "") -> str:
    units = {"uV": "MICROVOLTS", "mV": "MILLIVOLTS"}[unit]
    step = STEP_UV / 1e3 * PER_MV[unit]
    parts = [
        f"<LeadData><LeadByteCountTotal>{2 * len(row)}</LeadByteCountTotal><LeadTimeOffset>0</LeadTimeOffset>"
        f"<LeadSampleCountTotal>{len(row)}</LeadSampleCountTotal><LeadAmplitudeUnitsPerBit>{step:g}</LeadAmplitudeUnitsPerBit>"
        f"<LeadAmplitudeUnits>{units}</LeadAmplitudeUnits><LeadOff>{'TRUE' if lead == off else 'FALSE'}</LeadOff>"
        f"<LeadID>{lead}</LeadID><LeadSampleSize>2</LeadSampleSize>"
        f"<WaveFormData>\n{base64.encodebytes(row.astype('<i2').tobytes()).decode()}</WaveFormData></LeadData>"
        for lead, row in zip(leads, counts(samples), strict=True)
    ]
    return (
        f"<Waveform><WaveformType>{kind}</WaveformType><NumberofLeads>{len(leads)}</NumberofLeads>"
        f"<SampleBase>{FS:g}</SampleBase><SampleExponent>0</SampleExponent>{''.join(parts)}</Waveform>"
    )


def muse_file(path: Path, waveforms: str) -> Path:
    file = path.with_suffix(".xml")
    file.write_text(
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<!DOCTYPE RestingECG SYSTEM "restecg.dtd">\n'
        f"<RestingECG><MuseInfo><MuseVersion>8.0</MuseVersion></MuseInfo>{waveforms}</RestingECG>\n",
        encoding="latin-1",
    )
    return file


def cardiosoft(path: Path, samples: Samples, leads: Sequence[str] = LEADS) -> Path:
    file = path.with_suffix(".xml")
    rows = "".join(
        f'<WaveformData lead="{lead}">\n\t{",".join(map(str, row))}</WaveformData>'
        for lead, row in zip(leads, counts(samples).tolist(), strict=True)
    )
    file.write_text(
        '<?xml version="1.0" encoding="ISO-8859-1" ?>\n<CardiologyXML><ObservationType>RestECG</ObservationType>'
        f'<StripData><NumberOfLeads>{len(leads)}</NumberOfLeads><SampleRate units="Hz">{FS:g}</SampleRate>'
        f"<ChannelSampleCountTotal>{samples.shape[1]}</ChannelSampleCountTotal>"
        f'<Resolution units="uVperLsb">{STEP_UV:g}</Resolution>{rows}</StripData></CardiologyXML>\n'
    )
    return file
