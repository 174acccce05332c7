"""What is proposed in place of a name that does not exist."""

from __future__ import annotations

import pytest

from ecgnat_stream.alarm import PHYSIOLOGICAL, TECHNICAL
from ecgnat_stream.signal import LEADS
from ecgnat_stream.suggest import close_to, unknown

CONDITIONS = (*PHYSIOLOGICAL, *TECHNICAL)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("vf", ["ventricular-fibrillation"]),
        ("AF", ["atrial-fibrillation"]),
        ("vt", ["ventricular-tachycardia", "ventricular-trigeminy"]),
        ("asystol", ["asystole"]),
        ("Ventricular_Fibrilation", ["ventricular-fibrillation"]),
        ("pvc", ["frequent-pvc"]),
        ("zzz", []),
        ("-", []),
        ("", []),
    ],
)
def test_what_a_condition_may_mean(name: str, meant: list[str]) -> None:
    assert close_to(name, CONDITIONS) == meant


def test_never_more_than_three_are_proposed() -> None:
    assert len(close_to("bed", [f"bed-{i}" for i in range(20)])) == 3


def test_of_a_long_list_only_what_is_close_is_told() -> None:
    assert unknown("condition", "vf", CONDITIONS) == "unknown condition 'vf': did you mean ventricular-fibrillation?"
    assert "asystole" in unknown("condition", "zzz", CONDITIONS)


def test_a_short_list_is_told_whole() -> None:
    assert unknown("lead", "avr", LEADS).startswith("unknown lead 'avr': did you mean aVR? There are I, II, III, aVR")
    assert unknown("device", "x", ["replay", "simulate"]) == "unknown device 'x': there are replay, simulate"
    assert unknown("device", "x", []) == "unknown device 'x': there are none"
