"""What the 12-lead network may be asked about: enough of twelve leads, or an error that says what is missing."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from ecgnat_stream import LEADS, InputError, diagnose
from ecgnat_stream.analysis.diagnoses import Diagnosing
from ecgnat_stream.analysis.source import open_source

EIGHT = ("I", "II", *LEADS[6:])


def beating(seconds: float, leads: tuple[str, ...] = LEADS, fs: float = 250.0) -> np.ndarray[Any, Any]:
    t = np.arange(round(seconds * fs)) / fs
    return np.exp(-(((t % 0.8 - 0.4) / 0.02) ** 2)) * np.linspace(0.5, 1.5, len(leads))[:, None]


def off(seconds: float, lead: str, start_s: float, stop_s: float) -> np.ndarray[Any, Any]:
    """Return twelve leads of which one is off for a while."""
    samples = beating(seconds)
    samples[LEADS.index(lead), round(start_s * 250) : round(stop_s * 250)] = np.nan
    return samples


@pytest.mark.parametrize(
    ("samples", "leads", "message"),
    [
        (
            beating(10, ("II",)),
            ("II",),
            "need V1 to V6 and two of the limb leads.* has II; missing: V1, .*V6, one more limb lead",
        ),
        (beating(10, EIGHT[:-1]), EIGHT[:-1], r"missing: V6\. If it has them under other names, say so with lead_map"),
        (beating(10, LEADS[6:]), LEADS[6:], "missing: two limb leads"),
        (beating(4.8), LEADS, r"need at least 5 s in which none of the twelve leads is off; it is 4\.8 s long"),
        (off(10, "V3", 0, 10), LEADS, "need at least 5 s in which none"),
        (off(10, "V3", 2, 8), LEADS, "need at least 5 s in which none"),
    ],
)
def test_too_little_is_refused_when_asked_for_and_passed_over_when_not(
    samples: Any, leads: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        diagnose(samples, fs=250, leads=leads)
    recording = open_source(samples, fs=250, leads=leads)
    with ExitStack() as stack:
        with pytest.raises(InputError, match=message):
            Diagnosing(True, stack).of(recording, leads)
        assert not len(Diagnosing(None, stack).of(recording, leads))


@pytest.mark.parametrize("fs", [100.0, 257.0, 500.0])
def test_eight_leads_of_5_s_are_enough(fs: float) -> None:
    assert len(diagnose(beating(5, EIGHT, fs), fs=fs, leads=EIGHT)) == 5


def test_a_lead_that_is_off_for_a_while_does_not_matter() -> None:
    given = off(40, "V3", 20, 30)
    found = diagnose(given, fs=250, leads=LEADS)
    recording = open_source(given, fs=250, leads=LEADS)
    with ExitStack() as stack:
        np.testing.assert_array_equal(Diagnosing(None, stack).of(recording, LEADS), found)
