"""Which of the twelve leads a device lead is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.signal import LEADS, NOT_ECG, SampleBlock, assign_leads, ecg_signals, is_ecg, mv_per


def _named(names: list[str], lead_map: dict[str, str] | None = None) -> list[str | None]:
    return [None if slot is None else LEADS[slot] for slot in assign_leads(names, lead_map)]


def test_the_twelve_leads_are_themselves() -> None:
    assert _named(list(LEADS)) == list(LEADS)
    assert _named([lead.lower() for lead in LEADS]) == list(LEADS)


@pytest.mark.parametrize(("name", "lead"), [("MLII", "II"), ("MCL1", "V1"), ("V", "V1"), (" avr ", "aVR"), ("CM5", "V5")])
def test_aliases(name: str, lead: str) -> None:
    assert _named([name]) == [lead]


@pytest.mark.parametrize(
    ("name", "lead"),
    [
        ("ECG II", "II"),
        ("ECG V1-Ref", "V1"),
        ("V1-REF", "V1"),
        ("ECG LA-RA", "I"),
        ("LL-RA", "II"),
        ("ECG (aVF)", "aVF"),
        ("III ECG", "III"),
        ("ECG lead V6", "V6"),
        ("Ch1 V2", "V2"),
        ("LeadII", "II"),
        ("ECG_MLII", "II"),
    ],
)
def test_names_of_files_that_say_the_lead(name: str, lead: str) -> None:
    assert _named(["ECG", name]) == ["V1" if lead == "II" else "II", lead]


@pytest.mark.parametrize(
    "name",
    ["ECG", "EKG", "ecg 1", "ECG 1", "ECG EKG1", "EKG1-EKG2", "EcgWaveform", "ECG L", "ECG-RA", "wearableECG", "ECG é", "CH2"],
)
def test_names_of_files_that_say_only_that_it_is_an_ecg(name: str) -> None:
    assert is_ecg(name) is True
    assert _named([name]) == ["II"]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "EEG Fpz-Cz",
            "Fpz-Cz",
            "C3-A2",
            "C4-M1",
            "O2",
            "F3-Ref",
            "EOG horizontal",
            "LOC-A2",
            "E1-M2",
            "EMG submental",
            "L Chin",
        ),
        *("Resp oro-nasal", "Thor Res", "ABDO RES", "Thoracic", "Pleth", "SpO2", "SaO2", "Temp rectal", "Position", "Snore"),
        *("Status", "BDF Status", "EDF Annotations", "Event marker", "ECG Status", "ECG HR", "EKG resp", "fECG", "LEG 1"),
    ],
)
def test_names_of_files_that_are_no_ecg(name: str) -> None:
    assert is_ecg(name) is False
    assert _named(["II", name]) == ["II", None]


def test_c3_is_of_the_head_beside_others_of_the_head() -> None:
    assert ecg_signals(["C3", "C4-Ref", "O1", "ECG L"], ["uV"] * 4) == [3]
    assert ecg_signals(["C3", "EEG", "ECG"], ["uV"] * 3) == [2]
    assert ecg_signals(["C1", "C2", "ECG"], ["uV"] * 3) == [0, 1, 2]
    assert ecg_signals(["ECG C3", "O1"], ["uV"] * 2) == [0]


@pytest.mark.parametrize("name", ["C3", "EXG1", "RecGain", "X", "1", "", "foo"])
def test_names_of_files_that_say_nothing(name: str) -> None:
    assert is_ecg(name) is None


def test_unspecified_names_take_free_leads_in_turn() -> None:
    assert _named(["ECG", "ECG"]) == ["II", "V1"]
    assert _named(["ECG1", "ECG2"]) == ["II", "V1"]
    assert _named(["ECG", "II"]) == ["V1", "II"]


def test_what_is_no_ecg_is_left_out() -> None:
    assert _named(["II", *NOT_ECG]) == ["II", *[None] * len(NOT_ECG)]


def test_second_copy_is_left_out() -> None:
    assert _named(["MLII", "II"]) == ["II", None]


def test_lead_map_overrides() -> None:
    assert _named(["noise1", "II"], {"noise1": "V6", "II": ""}) == ["V6", None]


@pytest.mark.parametrize(
    ("names", "lead_map", "said"),
    [
        (["foo"], None, "unknown lead name 'foo'"),
        (["II"], {"II": "X"}, "unknown lead "),
        (["ABP"], None, "no ECG lead"),
        ([], None, "no names at all"),
    ],
)
def test_errors_name_the_option(names: list[str], lead_map: dict[str, str] | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        assign_leads(names, lead_map)
    assert "lead_map" in str(caught.value)


@given(st.lists(st.sampled_from([*LEADS, "MLII", "V", "ECG", "ECG2", "ABP", "COUNTER"]), min_size=1, max_size=16))
def test_no_lead_is_given_twice(names: list[str]) -> None:
    try:
        slots = [slot for slot in assign_leads(names) if slot is not None]
    except ConfigError:
        assert set(names) <= {"ABP", "COUNTER"}
        return
    assert len(set(slots)) == len(slots)


def test_block_stop() -> None:
    import numpy as np

    assert SampleBlock(10, np.zeros((2, 5), np.float32), 0).stop == 15


@pytest.mark.parametrize(
    ("mv", "spellings"),
    [
        (1e-6, ("nV", "nanoVolt", "NV")),
        (
            1e-3,
            ("uV", "MicroV", "micro volts", "uVolt", "uVolts", "(uV)", "muV", "u V", "µV", "μV", "ìV", "æV", "㎶", "micro-Volt"),
        ),
        (1.0, ("mV", "MV", "milliV", "milli Volts", "mVolt", "mvolts", "[mV]", "(mV)", "{mV}", " m V ", "㎷")),
        (1e3, ("V", "volt", "Volts", "[V]", "( v )")),
        (None, ("", "kV", "pV", "MegaV", "ÂµV", "mmHg", "mV/s", "V2", "[mV", "()", "s", "m", "olt", "mV mV", "iV", "àV")),
    ],
)
def test_a_unit_of_voltage_is_known_in_every_usual_spelling(mv: float | None, spellings: tuple[str, ...]) -> None:
    assert {spelling: mv_per(spelling) for spelling in spellings} == dict.fromkeys(spellings, mv)


def test_units_are_read_however_they_are_written() -> None:
    assert [mv_per(unit) for unit in ("mV", " uV", "µV", "V", "nV", "microVolts", "mmHg", "")] == [
        1,
        1e-3,
        1e-3,
        1e3,
        1e-6,
        1e-3,
        None,
        None,
    ]
