"""DICOM, HL7 aECG, SCP-ECG, ISHNE, Philips and GE: what is particular to each, and that nothing in a file can do harm."""

from __future__ import annotations

import base64
import builtins
import gzip
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecgnat_devices.records import open_record
from ecgnat_devices.records.contents import Asked, Contents, border
from ecgnat_devices.records.registry import reader
from ecgnat_stream.errors import DeviceError
from ecgnat_stream.recordings import Format
from ecgnat_stream.signal import LEADS as TWELVE
from tests.unit.records import bedside
from tests.unit.records.makers import FS, LEADS, signal

SAMPLES = signal(4.0)
EIGHT = ("I", "II", "V1", "V2")


def contents(fmt: Format, path: Path) -> Contents:
    with border(path, "cannot be read"):
        return reader(fmt)(path, Asked())


def all_of(read: Contents) -> NDArray[np.float64]:
    return read.read(range(len(read.signals)), 0, read.signals[0].total)


def four_leads() -> NDArray[np.float64]:
    """Return I, II, V1 and V2, none of which is another."""
    return np.round(np.stack([SAMPLES[0], 0.7 * SAMPLES[0] + SAMPLES[1], SAMPLES[1], 0.4 * SAMPLES[0]]) / 0.005) * 0.005


def twelve_leads() -> NDArray[np.float64]:
    """Return twelve leads in steps of 5 uV; III, aVR, aVL and aVF as a recorder rounds them, sometimes by a step too much."""
    one, two, first, second = np.round(four_leads() / 0.005)
    limb = [two - one + 1, -np.floor((one + two) / 2), np.floor(one - two / 2) - 1, np.floor(two - one / 2)]
    return 0.005 * np.stack([one, two, *limb, first, second, first - second, first + second, -first, -second])


def refused(fmt: Format, path: Path, words: str) -> None:
    with pytest.raises(DeviceError, match=words) as error:
        contents(fmt, path)
    assert str(path) in str(error.value)
    assert error.value.permanent


# DICOM


def test_dicom_is_read_as_pydicom_reads_it(tmp_path: Path) -> None:
    file = bedside.dicom(tmp_path / "d", four_leads(), "mV", fs=500.0, leads=EIGHT)
    read = contents("dicom", file)
    np.testing.assert_allclose(all_of(read), pydicom.dcmread(file).waveform_array(0).T, rtol=1e-12)
    assert [(lead.name, lead.unit, lead.fs) for lead in read.signals] == [(lead, "mV", 500.0) for lead in EIGHT]


def test_dicom_takes_the_rhythm_and_not_the_median_beat(tmp_path: Path) -> None:
    steps = bedside.counts(SAMPLES)
    median = bedside.dicom_group(steps[:, :100], LEADS, "uV", 1000.0, "MEDIAN BEAT")
    file = bedside.dicom_file(tmp_path / "d", [median, bedside.dicom_group(steps, LEADS, "uV", FS)])
    record = open_record(file)
    assert (record.fs, record.total, record.leads) == (FS, SAMPLES.shape[1], LEADS)


def test_dicom_channels_have_their_own_gain_zero_and_padding(tmp_path: Path) -> None:
    steps = bedside.counts(SAMPLES)
    steps[1, 10:20] = -32768
    group = bedside.dicom_group(steps, LEADS, "uV", FS)
    first, second = group.ChannelDefinitionSequence
    first.ChannelSensitivityCorrectionFactor, first.ChannelBaseline = "2", "-75000"
    second.ChannelSensitivityUnitsSequence[0].CodeValue = "mV"
    group.add_new("WaveformPaddingValue", "OW", struct.pack("<h", -32768))
    read = all_of(contents("dicom", bedside.dicom_file(tmp_path / "d", [group])))
    np.testing.assert_allclose(read[0], 2e3 * SAMPLES[0] - 75_000)
    expected = 1e3 * SAMPLES[1]
    expected[10:20] = np.nan
    np.testing.assert_allclose(read[1], expected)


def test_dicom_leads_in_turn_stand_where_they_were_recorded(tmp_path: Path) -> None:
    """A resting ECG of three leads at a time, 2.5 s each, as it is printed on paper."""
    steps = bedside.counts(four_leads())
    groups = [bedside.dicom_group(steps[i : i + 2, :500], EIGHT[i : i + 2], "uV", FS) for i in (0, 2)]
    groups[1].MultiplexGroupTimeOffset = "2000"
    read = all_of(contents("dicom", bedside.dicom_file(tmp_path / "d", groups)))
    expected = np.full((4, 1000), np.nan)
    expected[:2, :500], expected[2:, 500:] = 1e3 * four_leads()[:2, :500], 1e3 * four_leads()[2:, :500]
    np.testing.assert_allclose(read, expected)


def test_dicom_of_the_same_time_twice_is_read_once_and_said(tmp_path: Path) -> None:
    steps = bedside.counts(SAMPLES)
    groups = [bedside.dicom_group(steps[:, :500], LEADS, "uV", FS), bedside.dicom_group(steps[1:], LEADS[1:], "uV", FS)]
    read = contents("dicom", bedside.dicom_file(tmp_path / "d", groups))
    assert [lead.name for lead in read.signals] == list(LEADS)
    assert read.notes == ("holds V1 more than once for the same time: the longest piece is read",)
    np.testing.assert_allclose(all_of(read)[1], 1e3 * SAMPLES[1])


@pytest.mark.parametrize(
    ("code", "scheme", "name"),
    [
        ("5.6.3-9-62", "SCPECG", "aVR"),
        ("2:2", "MDC", "II"),
        ("MDC_ECG_LEAD_AVF", "MDC", "aVF"),
        ("2:18948", "MDC", "Lead II (somehow)"),
    ],
)
def test_dicom_leads_by_their_codes(tmp_path: Path, code: str, scheme: str, name: str) -> None:
    group = bedside.dicom_group(bedside.counts(SAMPLES), LEADS, "uV", FS)
    source = group.ChannelDefinitionSequence[0].ChannelSourceSequence[0]
    source.CodeValue, source.CodingSchemeDesignator = code, scheme
    assert contents("dicom", bedside.dicom_file(tmp_path / "d", [group])).signals[0].name == name


@pytest.mark.parametrize("kind", ["SB", "UB", "US", "SL", "UL"])
def test_dicom_kinds_of_samples(tmp_path: Path, kind: str) -> None:
    steps = np.arange(24).reshape(2, 12)
    group = bedside.dicom_group(steps, LEADS, "uV", FS)
    numbers = np.dtype({"SB": "i1", "UB": "u1", "US": "u2", "SL": "i4", "UL": "u4"}[kind]).newbyteorder("<")
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 8 * numbers.itemsize, kind
    group.add_new("WaveformData", "OW", steps.T.astype(numbers).tobytes())
    np.testing.assert_allclose(all_of(contents("dicom", bedside.dicom_file(tmp_path / "d", [group]))), 5.0 * steps)


def spoil_dicom(group: Any, **values: Any) -> Any:
    for keyword, value in values.items():
        setattr(group, keyword, value)
    return group


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"NumberOfWaveformSamples": 4_000_000_000}, "should have 4000000000 samples of 2 channels, but 1000 are there"),
        ({"NumberOfWaveformChannels": 60_000}, "60000 channels of 1000 samples, and describes 2"),
        ({"WaveformSampleInterpretation": "MB"}, "mu-law"),
        ({"WaveformSampleInterpretation": "XX"}, "the kind XX"),
        ({"WaveformBitsAllocated": 8}, "8 bits for a sample of the kind SS"),
        ({"SamplingFrequency": "0"}, "a sampling rate of 0 Hz"),
        ({"MultiplexGroupTimeOffset": "1e300"}, "after the recording begins"),
    ],
)
def test_dicom_that_is_not_read(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    steps = bedside.counts(SAMPLES)
    groups = [bedside.dicom_group(steps, LEADS, "uV", FS), spoil_dicom(bedside.dicom_group(steps, LEADS, "uV", FS), **values)]
    refused("dicom", bedside.dicom_file(tmp_path / "d", groups), words)


def test_dicom_without_a_waveform_says_what_it_is(tmp_path: Path) -> None:
    refused("dicom", bedside.dicom_file(tmp_path / "d", []), "holds no waveform: it is 12-lead ECG Waveform Storage")
    (tmp_path / "no.dcm").write_bytes(bytes(4000))
    refused("dicom", tmp_path / "no.dcm", "is no DICOM file")


def test_dicom_that_is_deflated_is_not_unpacked(tmp_path: Path) -> None:
    group = bedside.dicom_group(bedside.counts(SAMPLES), LEADS, "uV", FS)
    refused("dicom", bedside.dicom_file(tmp_path / "d", [group], "1.2.840.10008.1.2.1.99"), "deflated")


def test_without_pydicom_the_message_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = bedside.dicom(tmp_path / "d", SAMPLES)
    whole = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "pydicom" or name == "ecgnat_devices.records.dicom":
            raise ImportError("No module named 'pydicom'", name="pydicom")
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DeviceError, match=r"need pydicom: pip install 'ecgnat-stream\[formats\]'"):
        open_record(file)


# HL7 aECG


def test_aecg_adds_the_limb_leads_that_follow(tmp_path: Path) -> None:
    samples = four_leads()
    record = open_record(bedside.aecg(tmp_path / "a", samples, "mV", leads=EIGHT))
    assert record.leads == ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2")
    read = record.read(0, record.total)
    one, two = samples[:2]
    expected = np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, *samples[2:]])
    np.testing.assert_allclose(read, expected, atol=1e-6)


def test_aecg_derived_series_and_annotations_are_left_out(tmp_path: Path) -> None:
    whole, part = bedside.aecg_set(SAMPLES, "uV", "20221122091000"), bedside.aecg_set(SAMPLES[:, :50], "uV", "20221122091000")
    beat = bedside.aecg_series(part, "REPRESENTATIVE_BEAT")
    derived = f"<derivation><derivedSeries>{part}</derivedSeries></derivation><subjectOf><annotationSet/></subjectOf>"
    file = bedside.aecg_file(tmp_path / "a", beat + bedside.aecg_series(whole + derived))
    record = open_record(file)
    assert (record.leads, record.total) == (LEADS, SAMPLES.shape[1])


def test_aecg_zones_and_relative_times(tmp_path: Path) -> None:
    first = bedside.aecg_set(SAMPLES[:, :500], "uV", "20221122091000.000-0500")
    for after in ("20221122151004+0100", "20221122141004Z"[:-1]):
        read = contents(
            "aecg",
            bedside.aecg_file(tmp_path / "a", bedside.aecg_series(first + bedside.aecg_set(SAMPLES[:, 500:], "uV", after))),
        )
        assert read.signals[0].total == 1000 + 500
    relative = bedside.aecg_set(SAMPLES, "uV", "0").replace('<head value="0"/>', '<head value="0" unit="ms"/>')
    relative = relative.replace('value="0.004" unit="s"', 'value="4" unit="ms"')
    assert contents("aecg", bedside.aecg_file(tmp_path / "r", bedside.aecg_series(relative))).signals[0].fs == pytest.approx(FS)


def test_aecg_with_a_date_that_is_none_stands_end_to_end(tmp_path: Path) -> None:
    sets = bedside.aecg_set(SAMPLES[:, :500], "uV", "20220231091000") + bedside.aecg_set(SAMPLES[:, 500:], "uV", "20220231091100")
    read = contents("aecg", bedside.aecg_file(tmp_path / "a", bedside.aecg_series(sets)))
    assert read.notes == ("has a time that is no time, so that its parts stand end to end",)
    np.testing.assert_allclose(all_of(read), 1e3 * SAMPLES)


def test_aecg_zero_in_another_unit_and_digits_that_are_none(tmp_path: Path) -> None:
    text = bedside.aecg_set(SAMPLES, "uV", "2022").replace('<origin value="0" unit="uV"/>', '<origin value="-42" unit="mV"/>')
    text = text.replace("<digits>", "<digits>NaN ")
    read = all_of(contents("aecg", bedside.aecg_file(tmp_path / "a", bedside.aecg_series(text))))
    assert np.isnan(read[:, 0]).all()
    np.testing.assert_allclose(read[:, 1:], 1e3 * SAMPLES - 42_000)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("SLIST_PQ", "PIXELS", None),
        ("<digits>", "<digits>many ", "lead II has samples that are no numbers"),
        ("digits>", "bits>", "lead II is given as SLIST_PQ"),
        ('<increment value="0.004"', '<increment value="0"', "an increment of 0 s"),
        ('<increment value="0.004"', '<increment value="soon"', "a time is 'soon', which is no number"),
        ('<increment value="0.004" unit="s"', '<increment value="0.004" unit="week"', "a time in week"),
        ("TIME_ABSOLUTE", "CLOCK", "without times"),
        ('<scale value="5"', '<scale value="inf"', "a step of inf"),
        ("sequenceSet", "set", "no series with samples"),
        ("AnnotatedECG", "svg", r"the root svg: of XML, AnnotatedECG \(HL7\)"),
    ],
)
def test_aecg_that_is_not_read(tmp_path: Path, old: str, new: str, words: str | None) -> None:
    file = bedside.aecg(tmp_path / "a", SAMPLES)
    file.write_text(file.read_text().replace(old, new))
    if words is None:
        assert contents("aecg", file).signals
    else:
        refused("aecg", file, words)


# XML


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "iso-8859-1"])
def test_xml_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    file = bedside.aecg(tmp_path / "a", SAMPLES)
    text = file.read_text().replace("UTF-8", encoding.removesuffix("-sig")).replace('code="93000"', 'code="µ"')
    file.write_bytes(text.encode(encoding))
    assert open_record(file).leads == LEADS
    packed = tmp_path / "b.xml.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert open_record(packed).leads == LEADS
    packed.write_bytes(gzip.compress(file.read_bytes()[:900]))
    with pytest.raises(DeviceError, match=r"b\.xml\.gz: is no sound XML, or it was cut") as error:
        open_record(packed)
    assert "ecgnat-" not in str(error.value)


def test_xml_with_a_prefix_and_comments(tmp_path: Path) -> None:
    file = bedside.aecg(tmp_path / "a", SAMPLES)
    text = file.read_text().replace("xmlns=", "xmlns:hl7=").replace("</", "\0").replace("<", "<hl7:").replace("\0", "</hl7:")
    text = text.replace("<hl7:?", "<?")
    file.write_text(text.replace("?>", "?>\n<!-- by a gateway -->", 1))
    assert open_record(file).leads == LEADS


BOMB = '<!DOCTYPE a [<!ENTITY a "ha">' + "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12)) + "]>"


@pytest.mark.parametrize(
    "before",
    [
        BOMB.replace("a0", "a"),
        '<!DOCTYPE a [<!ENTITY a "x">]>',
        '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a [<!ENTITY % a SYSTEM "http://example.org/a.dtd"> %a;]>',
    ],
)
def test_xml_with_entities_is_refused(tmp_path: Path, before: str) -> None:
    refused("aecg", bedside.aecg_file(tmp_path / "a", bedside.aecg_series(""), before), "entities")


def test_xml_that_uses_an_entity_of_a_dtd_elsewhere_is_refused(tmp_path: Path) -> None:
    file = bedside.muse(tmp_path / "m", SAMPLES)
    file.write_text(file.read_text().replace("<MuseVersion>8.0", "<MuseVersion>&hidden;"))
    refused("muse", file, "entities")


def test_xml_of_endless_depth_or_breadth_is_refused(tmp_path: Path) -> None:
    refused("aecg", bedside.aecg_file(tmp_path / "a", "<a>" * 1000), "elements")
    refused("aecg", bedside.aecg_file(tmp_path / "b", "<a/>" * 300_000), "elements")
    with (tmp_path / "c.xml").open("wb") as file:
        file.write(b"<AnnotatedECG>")
        file.truncate(2**30)
    refused("aecg", tmp_path / "c.xml", "1073741824 bytes")


# SCP-ECG


@pytest.mark.parametrize("differences", [0, 1, 2])
@pytest.mark.parametrize("huffman", [True, False])
def test_scp_codings(tmp_path: Path, differences: int, huffman: bool) -> None:
    rows = [bedside.scp_differences(row, differences) for row in bedside.counts(SAMPLES).tolist()]
    coded = [bedside.scp_bits(row) if huffman else struct.pack(f"<{len(row)}h", *row) for row in rows]
    sections = {3: bedside.scp_leads(LEADS, SAMPLES.shape[1]), 6: bedside.scp_data(coded, differences)}
    if huffman:
        sections[2] = struct.pack("<H", 19999)
    read = contents("scp", bedside.scp_file(tmp_path / "s", sections))
    assert (read.notes, read.signals[0].fs, read.signals[0].unit, read.signals[0].step) == ((), 250.0, "nV", 5000)
    np.testing.assert_array_equal(all_of(read), np.round(1e6 * SAMPLES))


def test_scp_tables_of_its_own_and_a_change_between_them(tmp_path: Path) -> None:
    """Table 1: 0 is 7, 10 is -300, 11 changes to table 2. Table 2: 1 and four bits, 0 changes back."""

    def code(prefix: str, follow: int, is_value: int, base: int) -> bytes:
        return struct.pack("<BBBhI", len(prefix), len(prefix) + follow, is_value, base, int(prefix[::-1], 2))

    first = struct.pack("<H", 3) + code("0", 0, 1, 7) + code("10", 0, 1, -300) + code("11", 0, 0, 2)
    second = struct.pack("<H", 2) + code("1", 4, 1, 0) + code("0", 0, 0, 1)
    bits = "0" + "10" + "11" + "1" + "1000" + "1" + "0111" + "0" + "10"
    coded = int(bits.ljust(24, "0"), 2).to_bytes(3, "big")
    sections = {2: struct.pack("<H", 2) + first + second, 3: bedside.scp_leads(["II"], 5), 6: bedside.scp_data([coded], 0)}
    read = all_of(contents("scp", bedside.scp_file(tmp_path / "s", sections)))
    assert (read / 5000).tolist() == [[7, -300, -8, 7, -300]]


def test_scp_reference_beat_is_put_back(tmp_path: Path) -> None:
    """A beat of 40 samples, its fiducial point the 11th, taken away at samples 101 and 505 (but not where the type is 1)."""
    steps = bedside.counts(SAMPLES)
    beat = np.array([np.arange(40) * 3, np.arange(40) * -2])
    residual = steps.copy()
    places = [(0, 95, 101, 125), (1, 300, 310, 330), (0, 495, 505, 534)]
    for kind, begin, fiducial, end in places:
        for sample in range(begin, end + 1):
            if kind == 0:
                residual[:, sample - 1] -= beat[:, sample - fiducial + 11 - 1]
    sections = {
        2: struct.pack("<H", 19999),
        3: bedside.scp_leads(LEADS, 1000, flags=5),
        4: struct.pack("<HHH", 160, 11, 3) + b"".join(struct.pack("<HIII", *place) for place in places),
        5: bedside.scp_data([bedside.scp_bits(bedside.scp_differences(row, 1)) for row in beat.tolist()], 1),
        6: bedside.scp_data([bedside.scp_bits(bedside.scp_differences(row, 2)) for row in residual.tolist()], 2),
    }
    read = contents("scp", bedside.scp_file(tmp_path / "s", sections))
    np.testing.assert_array_equal(all_of(read), 5000.0 * steps)
    del sections[5]
    refused("scp", bedside.scp_file(tmp_path / "t", sections), "does not hold it")


def test_scp_adds_the_limb_leads_and_keeps_the_beginnings_of_leads(tmp_path: Path) -> None:
    record = open_record(bedside.scp(tmp_path / "s", four_leads(), leads=EIGHT))
    assert record.leads == ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2")
    rows = [bedside.scp_bits(bedside.scp_differences(row, 1)) for row in bedside.counts(SAMPLES[:, :500]).tolist()]
    leads = bedside.scp_leads(LEADS[:1], 500)[2:] + bedside.scp_leads(LEADS[1:], 500, first=501)[2:]
    sections = {2: struct.pack("<H", 19999), 3: bytes((2, 0)) + leads, 6: bedside.scp_data(rows, 1)}
    read = all_of(contents("scp", bedside.scp_file(tmp_path / "t", sections)))
    assert read.shape == (2, 1000)
    np.testing.assert_array_equal(np.isnan(read), [np.arange(1000) >= 500, np.arange(1000) < 500])
    np.testing.assert_array_equal(read[1, 500:], np.round(1e6 * SAMPLES[1, :500]))


def test_scp_that_is_not_read(tmp_path: Path) -> None:
    rows = [bedside.scp_bits(row) for row in bedside.counts(SAMPLES).tolist()]
    good = {2: struct.pack("<H", 19999), 3: bedside.scp_leads(LEADS, 1000), 6: bedside.scp_data(rows, 0)}
    for sections, words in (
        ({**good, 6: bedside.scp_data(rows, 0, bimodal=1)}, "bimodal"),
        ({**good, 6: bedside.scp_data(rows, 0, interval_us=0)}, "every 0 us"),
        ({**good, 6: bedside.scp_data(rows, 3)}, "differences 3"),
        ({**good, 6: good[6][:200]}, "it was cut"),
        ({**good, 6: b"\1"}, "ends too early"),
        ({**good, 3: bedside.scp_leads(LEADS, 2**31)}, "4294967296 samples in section 6"),
        ({**good, 3: bedside.scp_leads(LEADS, 2_000_000)}, "should have 2000000 samples"),
        ({**good, 3: bedside.scp_leads(LEADS, 0)}, "samples 1 to 0 of lead 1"),
        ({**good, 2: struct.pack("<H", 0)}, "no Huffman table"),
        ({**good, 2: struct.pack("<HHBBBhI", 1, 1, 0, 0, 1, 0, 0)}, "a Huffman code of 0 bits"),
        ({2: good[2], 3: good[3]}, "no rhythm"),
        ({3: good[3], 6: good[6]}, "it was cut"),
    ):
        refused("scp", bedside.scp_file(tmp_path / "s", sections), words)
    whole = bedside.scp(tmp_path / "t", SAMPLES).read_bytes()
    (tmp_path / "t.scp").write_bytes(whole[:-10])
    refused("scp", tmp_path / "t.scp", f"should have {len(whole)} bytes, but has {len(whole) - 10}")
    (tmp_path / "t.scp").write_bytes(whole[:-10] + bytes(10))
    assert contents("scp", tmp_path / "t.scp").notes == ("its checksum does not fit: it may be damaged",)


# ISHNE


def test_ishne_counts_samples_as_recorders_do(tmp_path: Path) -> None:
    steps = bedside.counts(SAMPLES)
    for stated, total, notes in ((1000, 1000, 0), (0, 1000, 0), (2000, 1000, 0), (600, 600, 0), (5000, 1000, 1)):
        read = contents("ishne", bedside.ishne_file(tmp_path / "i", steps, LEADS, stated=stated, variable=b"of a hospital"))
        assert (read.signals[0].total, len(read.notes)) == (total, notes)
    assert read.notes == ("says that it has 5000 samples of each lead, but holds 1000: it may have been cut",)


def test_ishne_leads_without_a_name_are_ecg_leads(tmp_path: Path) -> None:
    record = open_record(bedside.ishne_file(tmp_path / "i", bedside.counts(SAMPLES), ("", "")))
    assert record.leads == ("ECG1", "ECG2")


def test_ishne_checksum_and_odd_dates_refuse_nothing(tmp_path: Path) -> None:
    file = bedside.ishne(tmp_path / "i", SAMPLES)
    whole = bytearray(file.read_bytes())
    whole[138:144] = struct.pack("<3h", 31, 2, -4)
    file.write_bytes(whole)
    read = contents("ishne", file)
    assert read.notes == ("its checksum does not fit its header, which may be damaged",)
    np.testing.assert_allclose(all_of(read), 1e6 * SAMPLES)


@pytest.mark.parametrize(
    ("at", "form", "value", "words"),
    [
        (156, "h", 4000, "4000 leads"),
        (156, "h", 0, "0 leads"),
        (272, "h", 0, "a sampling rate of 0 Hz"),
        (22, "i", 100, "within its header"),
        (22, "i", 2**31 - 1, "holds no samples"),
        (0, "8s", b"ANN  1.0", "annotations"),
        (0, "8s", b"CONTEC  ", "is no ISHNE file"),
    ],
)
def test_ishne_that_is_not_read(tmp_path: Path, at: int, form: str, value: object, words: str) -> None:
    file = bedside.ishne(tmp_path / "i", SAMPLES)
    whole = bytearray(file.read_bytes())
    struct.pack_into(f"<{form}", whole, at, value)
    file.write_bytes(whole)
    with pytest.raises(DeviceError, match=words):
        open_record(file, "ishne")


def test_ishne_of_a_day_is_read_in_pieces(tmp_path: Path) -> None:
    file = bedside.ishne(tmp_path / "i", SAMPLES)
    with file.open("r+b") as opened:
        opened.truncate(522 + 24 * 3600 * 250 * 2 * 2)
        opened.seek(14)
        opened.write(struct.pack("<i", 24 * 3600 * 250))
    tracemalloc.start()
    record = open_record(file)
    assert (record.total, record.read(record.total - 250, record.total).tolist()) == (21_600_000, np.zeros((2, 250)).tolist())
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


# Philips


def test_philips_xli_with_limb_leads_as_what_is_left(tmp_path: Path) -> None:
    samples = twelve_leads()
    record = open_record(bedside.philips_xli(tmp_path / "p", samples, TWELVE))
    assert record.leads == TWELVE
    np.testing.assert_allclose(record.read(0, record.total), samples, atol=1e-6)


def test_philips_xli_of_a_table_that_becomes_full(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-30_000, 30_000, (2, 1000)) * 0.005
    samples = np.cumsum(np.cumsum(noise, axis=1) * 1e-4, axis=1) * 0.01
    samples = np.round(samples / 0.005) * 0.005
    record = open_record(bedside.philips_xli(tmp_path / "p", samples))
    np.testing.assert_allclose(record.read(0, record.total), samples, atol=1e-5)


def test_philips_as_text(tmp_path: Path) -> None:
    rows = bedside.counts(SAMPLES)
    text = "\n".join(" ".join(map(str, row)) for row in rows)
    file = bedside.philips_file(tmp_path / "p", text, LEADS, 1000, 'dataencoding="Plain" compression="Uncompressed"', "UTF-8")
    np.testing.assert_allclose(all_of(contents("philips", file)), 1e3 * SAMPLES)


def test_philips_that_is_not_read(tmp_path: Path) -> None:
    data = base64.b64encode(bedside.counts(SAMPLES).astype("<i2").tobytes()).decode()
    lead = bedside.xli_lead(bedside.counts(SAMPLES)[0].tolist())
    packed = base64.b64encode(lead).decode()
    bomb = bedside.lzw(bytes(2**18))
    bomb_text = base64.b64encode(struct.pack("<ihh", len(bomb), 1, 0) + bomb).decode()
    no_code = base64.b64encode(struct.pack("<ihh", 3, 1, 0) + bytes((255, 255, 0))).decode()
    odd_code = base64.b64encode(struct.pack("<ihh", 3, 1, 0) + bytes((127, 0, 0))).decode()
    xli, plain, base = 'dataencoding="Base64" compression="XLI"', 'dataencoding="Plain"', 'dataencoding="Base64"'
    for text, form, total, words in (
        (data[:1000], base, 1000, "should have 2 leads of 1000 samples, but 375 samples"),
        (data[:1001], base, 1000, "no base64"),
        (data, base, 10**9, "samples are read"),
        (data, base.replace("64", "32"), 1000, "as Base32"),
        (data, xli.replace("XLI", "Huffman"), 1000, "compressed with Huffman"),
        ("1 2 70000 4", plain, 2, "no samples of 16 bits"),
        ("1 2 x 4", plain, 2, "no numbers"),
        (packed, xli, 1000, "ends after 1: it was cut"),
        (packed[:200], xli, 1000, "ends within lead 1"),
        (packed, xli, 1001, "1000 samples in lead 1, not 1001|a lead of more than"),
        (bomb_text, xli, 1000, "more than 1001 samples"),
        (no_code, xli, 1000, "0 samples in lead 1, not 1000"),
        (odd_code, xli, 1000, "an LZW code 508 that stands for nothing"),
    ):
        refused("philips", bedside.philips_file(tmp_path / "p", text, LEADS, total, form, "UTF-8"), words)


# GE


def test_muse_takes_the_rhythm_adds_limb_leads_and_leaves_out_what_was_off(tmp_path: Path) -> None:
    median = bedside.muse_waveform(four_leads()[:, :300], leads=EIGHT, kind="Median")
    rhythm = bedside.muse_waveform(four_leads(), leads=EIGHT, off="V2")
    record = open_record(bedside.muse_file(tmp_path / "m", median + rhythm))
    assert (record.leads, record.total) == (("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2"), 1000)
    read = record.read(0, record.total)
    assert np.isnan(read[7]).all()
    np.testing.assert_allclose(read[2], four_leads()[1] - four_leads()[0], atol=1e-6)


def test_muse_checksum_and_what_is_not_read(tmp_path: Path) -> None:
    for old, new, words in (
        ("LeadSampleCountTotal>1000<", "LeadSampleCountTotal>1000000000000<", "should have 1000000000000 samples, but 1000"),
        ("LeadSampleSize>2<", "LeadSampleSize>4<", "samples of 4 bytes"),
        ("<SampleBase>250<", "<SampleBase>0<", "a sampling rate of 0 Hz"),
        ("<SampleExponent>0<", "<SampleExponent>999999999<", "SampleExponent"),
        ("UnitsPerBit>5<", "UnitsPerBit>many<", "LeadAmplitudeUnitsPerBit is 'many', which is no number"),
        ("Rhythm", "Median", "no rhythm"),
        ("<WaveFormData>", "<WaveFormData>!", "no base64"),
    ):
        file = bedside.muse(tmp_path / "m", SAMPLES)
        file.write_text(file.read_text().replace(old, new))
        refused("muse", file, words)
    file = bedside.muse(tmp_path / "m", SAMPLES)
    file.write_text(file.read_text().replace("<LeadID>II", "<LeadDataCRC32>17</LeadDataCRC32><LeadID>II"))
    assert contents("muse", file).notes == ("the checksum of lead II does not fit: it may be damaged",)


def test_cardiosoft(tmp_path: Path) -> None:
    file = bedside.cardiosoft(tmp_path / "c", SAMPLES)
    record = open_record(file)
    assert (record.leads, record.fs, record.uv_per_lsb) == (LEADS, FS, 5.0)
    np.testing.assert_allclose(record.read(0, record.total), SAMPLES, atol=1e-6)
    file.write_text(file.read_text().replace("Total>1000<", "Total>1001<"))
    refused("muse", file, "should have 1001 samples, but 1000")


# All


def _without_step_dicom(path: Path) -> Path:
    group = bedside.dicom_group(bedside.counts(SAMPLES), LEADS, "uV", FS)
    for channel in group.ChannelDefinitionSequence:
        del channel.ChannelSensitivity, channel.ChannelSensitivityUnitsSequence
    return bedside.dicom_file(path, [group])


def _without(make: Callable[..., Path], old: str, new: str = "", encoding: str = "latin-1") -> Callable[[Path], Path]:
    def made(path: Path) -> Path:
        file = make(path, SAMPLES)
        text = file.read_bytes().decode(encoding)
        assert old in text
        file.write_bytes(text.replace(old, new).encode(encoding))
        return file

    return made


@pytest.mark.parametrize(
    "make",
    [
        _without_step_dicom,
        _without(bedside.aecg, '<scale value="5" unit="uV"/>'),
        _without(bedside.scp, "\x88\x13\xa0\x0f", "\0\0\xa0\x0f"),
        _without(bedside.ishne, "\x88\x13\x88\x13", "\0\0\0\0"),
        _without(bedside.philips, "<signalresolution>5</signalresolution>", "", "utf-16"),
        _without(bedside.muse, "<LeadAmplitudeUnitsPerBit>5</LeadAmplitudeUnitsPerBit>"),
        _without(bedside.cardiosoft, "uVperLsb", "turns"),
    ],
    ids=["dicom", "aecg", "scp", "ishne", "philips", "muse", "cardiosoft"],
)
def test_without_a_step_the_numbers_are_counts_whose_size_is_asked_for(make: Callable[[Path], Path], tmp_path: Path) -> None:
    file = make(tmp_path / "f")
    with pytest.raises(DeviceError, match="does not say its units: give units"):
        open_record(file, leads=LEADS)
    record = open_record(file, units="uV", scale=bedside.STEP_UV)
    assert "does not say how large a step of II, V1 is: say it with scale and units" in record.notes[-1]
    np.testing.assert_allclose(record.read(0, record.total), SAMPLES, atol=1e-6)


MADE: dict[Format, Callable[..., Path]] = {
    "dicom": bedside.dicom,
    "aecg": bedside.aecg,
    "scp": bedside.scp,
    "ishne": bedside.ishne,
    "philips": bedside.philips_xli,
    "muse": bedside.muse,
}


@pytest.mark.parametrize("fmt", MADE)
def test_whatever_bytes_are_there_it_is_an_error_or_a_recording(fmt: Format, tmp_path: Path) -> None:
    """Random bytes, and sound files of which some were changed, cut or doubled: nothing else than an error of this project."""
    sound = MADE[fmt](tmp_path / "f", signal(0.4))
    whole = sound.read_bytes()
    places = st.tuples(st.integers(0, len(whole) - 1), st.binary(min_size=1, max_size=4))
    changed = st.builds(
        _changed, st.just(whole), st.lists(places, max_size=6), st.none() | st.integers(0, len(whole)), st.integers(0, 40)
    )

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=600) | changed)
    def holds(data: bytes) -> None:
        sound.write_bytes(data)
        try:
            read = contents(fmt, sound)
            for row, lead in enumerate(read.signals):
                assert lead.total >= 0
                assert lead.fs is not None
                assert lead.fs > 0
                stop = min(lead.total, 200)
                assert read.read([row], 0, stop).shape == (1, stop)
                assert read.read([row], max(0, lead.total - 9), lead.total).shape == (1, min(9, lead.total))
        except DeviceError as error:
            assert str(sound) in str(error)

    holds()


def _changed(whole: bytes, places: list[tuple[int, bytes]], cut: int | None, more: int) -> bytes:
    data = bytearray(whole)
    for at, new in places:
        data[at : at + len(new)] = new
    return bytes(data[:cut]) + bytes(more)
