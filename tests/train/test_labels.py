"""What the databases state, as sets."""

from __future__ import annotations

import numpy as np
import pytest

from ecgnat_stream.codes import RHYTHMS
from train.data.labels import (
    CHAPMAN,
    CINC2017,
    LUDB,
    NO_BEAT,
    PTBXL,
    SNOMED,
    SNOMED_EPISODES,
    UNSTATED,
    WFDB_RHYTHMS,
    allow,
    beat_classes,
    forbid,
    from_changes,
    from_spans,
    of_codes,
    of_statements,
    token_sets,
)


def test_allow_and_forbid_are_each_other_s_complement() -> None:
    for name in RHYTHMS:
        assert allow(name) & forbid(name) == 0
        assert allow(name) | forbid(name) == UNSTATED


def test_changes_hold_until_the_next() -> None:
    sets = from_changes(100, [10, 20, 30, 40], ["(N", "", "(VT\x00", "(AFIB"])
    assert (sets[:10] == UNSTATED).all()
    assert (sets[10:30] == allow("SINUS")).all()
    assert (sets[30:40] == allow("VT")).all()
    assert (sets[40:] == allow("AF")).all()


def test_an_unknown_note_states_nothing() -> None:
    assert (from_changes(10, [0], ["(STRANGE"]) == UNSTATED).all()


def test_ectopy_goes_on_with_the_underlying_rhythm() -> None:
    sets = from_changes(50, [0, 10, 20, 30, 40], ["(AFIB", "(B", "(VT", "(T", "(N"])
    assert (sets[10:20] == allow("AF", "SINUS")).all()
    assert (sets[30:40] == allow("AF", "SINUS")).all()
    assert (from_changes(10, [0], ["(B"]) == allow("SINUS")).all()


def test_spans() -> None:
    sets = from_spans(10, allow("VF"), forbid("VF"), [(-5, 2), (8, 20)])
    assert sets.tolist() == [allow("VF")] * 2 + [forbid("VF")] * 6 + [allow("VF")] * 2


def test_statements_join() -> None:
    assert of_statements(["(N", "(AFIB", "else"], WFDB_RHYTHMS) == allow("SINUS", "AF")
    assert of_statements(["else"], WFDB_RHYTHMS) == UNSTATED


@pytest.mark.parametrize("length", [64, 65, 95, 96])
def test_a_change_inside_a_token_allows_both(length: int) -> None:
    samples = np.full(length, allow("SINUS"), np.uint8)
    samples[40:] = allow("VF")
    tokens = token_sets(samples, 32)
    assert tokens[:2].tolist() == [allow("SINUS"), allow("SINUS", "VF")]
    assert (tokens[2:] == allow("VF")).all()
    assert len(tokens) == -(-length // 32)


def test_an_unstated_sample_leaves_its_token_unstated() -> None:
    samples = np.full(64, allow("AF"), np.uint8)
    samples[5] = UNSTATED
    assert token_sets(samples, 32).tolist() == [UNSTATED, allow("AF")]


def test_episodes_are_possible_beside_the_stated_rhythm_only() -> None:
    assert of_codes(["426177001", "425856008"]) == allow("SINUS", "VT")
    assert of_codes(["425856008", "59118001"]) == UNSTATED
    assert of_codes(["164889003"]) == allow("AF")


def test_beat_symbols() -> None:
    assert beat_classes(["N", "L", "A", "V", "F", "/", "+", "~"]).tolist() == [0, 0, 1, 2, 3, 4, NO_BEAT, NO_BEAT]


@pytest.mark.parametrize("vocabulary", [WFDB_RHYTHMS, CHAPMAN, CINC2017, LUDB, PTBXL, SNOMED, SNOMED_EPISODES])
def test_every_word_of_a_vocabulary_says_something(vocabulary: dict[str, int]) -> None:
    assert all(0 < allowed < UNSTATED for allowed in vocabulary.values())
