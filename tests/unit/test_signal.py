"""Which of the twelve leads a device lead is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.signal import LEADS, NOT_ECG, SampleBlock, assign_leads, mv_per


def _named(names: list[str], lead_map: dict[str, str] | None = None) -> list[str | None]:
    return [None if slot is None else LEADS[slot] for slot in assign_leads(names, lead_map)]


def test_the_twelve_leads_are_themselves() -> None:
    assert _named(list(LEADS)) == list(LEADS)
    assert _named([lead.lower() for lead in LEADS]) == list(LEADS)


@pytest.mark.parametrize(("name", "lead"), [("MLII", "II"), ("MCL1", "V1"), ("V", "V1"), (" avr ", "aVR"), ("CM5", "V5")])
def test_aliases(name: str, lead: str) -> None:
    assert _named([name]) == [lead]


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
