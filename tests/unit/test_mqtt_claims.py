"""Who has which bed at the broker; which patterns of a receiver match nothing; another receiver of its name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import aiomqtt
import pytest

from ecgnat_stream import wire
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.events import EngineStatus, Technical
from ecgnat_stream.sink.mqtt.around import OtherReceiver, Patterns
from ecgnat_stream.sink.mqtt.claims import BedClaims
from ecgnat_stream.sink.mqtt.config import BrokerAccess

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BED = "home/icu/1"
HERE = BrokerAccess("broker", 1883, None, None, None)


def status(worker: str, session: int, *, online: bool = True, bed: str = BED, later_s: float = 0) -> wire.BedStatus:
    state: Any = "online" if online else "offline"
    since = NOW + timedelta(seconds=later_s)
    return wire.BedStatus(bed=bed, time=NOW, online=online, since=since, worker=worker, session=session, state=state)


def engine(worker: str, *, online: bool = True) -> EngineStatus:
    return EngineStatus(bed="", time=NOW, site="home", worker=worker, online=online, session=1)


def message(payload: bytes, *, bed: str = BED, retain: bool = False) -> aiomqtt.Message:
    return aiomqtt.Message(f"ecg/v1/{bed}/status", payload, 1, retain, 1, None)


class Claims:
    """The beds of ``w1``, and what came of what it heard."""

    def __init__(self, *beds: wire.BedStatus) -> None:
        self.clock, self.told = ManualClock(), list[Technical]()
        self.changes, self.again = list[tuple[str, bool]](), list[str]()
        changed = lambda bed, ours: self.changes.append((bed, ours))  # noqa: E731
        self.claims = BedClaims("w1", HERE, self.clock, self.told.append, changed=changed, again=self.again.append)
        for bed in beds:
            self.claims.is_now(bed)

    def hears(self, said: wire.BedStatus, *, retain: bool = False) -> None:
        self.claims.heard(message(wire.encode_json(said), bed=said.bed, retain=retain))

    @property
    def alarm(self) -> str:
        return self.told[-1].detail if self.told else ""


def test_what_we_said_ourselves_and_what_was_stored_before_us_is_nobody_else() -> None:
    one = Claims(status("w1", 5))
    one.hears(status("w1", 5))
    one.hears(status("w2", 1), retain=True)
    one.hears(status("w2", 1, bed="home/icu/2"))
    one.claims.heard(message(b"{"))
    assert (one.told, one.changes, one.again, one.claims.ours(BED)) == ([], [], [], True)


@pytest.mark.parametrize(
    ("mine", "theirs", "ours"),
    [
        (status("w1", 5), status("w2", 6), True),
        (status("w1", 6), status("w2", 5), False),
        (status("w1", 5), status("w2", 5, later_s=1), True),  # in the same second
        (status("w1", 5, later_s=1), status("w1", 5), False),  # of the same name, too
        (status("w1", 5, online=False), status("w2", 6), False),  # our device is lost, theirs is there
    ],
)
def test_one_of_two_has_a_bed_and_both_find_the_same(mine: wire.BedStatus, theirs: wire.BedStatus, ours: bool) -> None:
    one = Claims(mine)
    one.hears(theirs)
    assert one.claims.ours(BED) is ours
    assert one.changes == ([] if ours else [(BED, False)])
    assert one.again == ([BED] if ours else [])
    assert f"{BED} at broker:1883 is also a bed of monitor {theirs.worker}" in one.alarm
    assert ("we have it" if ours else "it has it") in one.alarm
    if mine.online:
        other = Claims(theirs)
        other.hears(mine)
        assert other.claims.ours(BED) is not ours


def test_what_the_other_one_may_have_overwritten_is_said_once_more() -> None:
    one = Claims(status("w1", 5))
    one.hears(status("w2", 6))
    one.claims.tick()
    assert one.again == [BED]
    one.clock._now_ns += 3 * 10**9
    one.claims.tick()
    one.claims.tick()
    assert one.again == [BED, BED]


@pytest.mark.parametrize("by", ["its bed is offline", "its status is cleared", "its monitor is offline", "silence"])
def test_a_bed_is_ours_again_when_the_other_one_is_gone(by: str) -> None:
    one = Claims(status("w1", 6))
    one.hears(status("w2", 5))
    assert one.claims.topics == ["ecg/v1/home/engine/w2/status"]
    one.clock._now_ns += 30 * 10**9
    one.claims.engine(engine("w2"))  # it lives
    one.claims.engine(engine("w3", online=False))  # somebody else does not
    one.clock._now_ns += 30 * 10**9
    one.claims.tick()
    assert one.changes == [(BED, False)]
    if by == "its bed is offline":
        one.hears(status("w2", 5, online=False))
    elif by == "its status is cleared":
        one.claims.heard(message(b""))
    elif by == "its monitor is offline":
        one.claims.engine(engine("w2", online=False))
    else:
        one.clock._now_ns += 6 * 10**9
        one.claims.tick()
    assert one.changes == [(BED, False), (BED, True)]
    assert [told.present for told in one.told] == [True, False]
    assert one.claims.topics == []


def test_who_has_a_bed_keeps_it_while_its_stream_begins_anew() -> None:
    one = Claims(status("w1", 6))
    one.hears(status("w2", 5))
    one.hears(status("w2", 9))
    assert one.changes == [(BED, False)]


def test_a_last_will_that_comes_late_is_put_right() -> None:
    one = Claims(status("w1", 6))
    one.hears(status("w1", 4, online=False))
    one.hears(status("w1", 4, online=False))
    assert one.again == [BED]
    assert one.told == []


@pytest.mark.parametrize("worker", ["", "#", "+", "a/b", "a" * 300, "w\n2"])
def test_nothing_that_cannot_be_a_monitor_takes_a_bed_or_becomes_a_topic(worker: str) -> None:
    one = Claims(status("w1", 6))
    one.hears(status(worker, 1))
    assert (one.claims.ours(BED), one.claims.topics, one.told) == (True, [], [])


def test_a_flood_of_statuses_is_answered_once_and_told_once() -> None:
    one = Claims(status("w1", 5))
    for k in range(1000):
        one.hears(status(f"w{k + 2}", 6))
        one.hears(status(f"w{k + 2}", 6 + k))
    assert one.again == [BED]
    assert len(one.told) == 1


def test_many_beds_are_one_alarm() -> None:
    beds = [f"home/icu/{k}" for k in range(3)]
    one = Claims(*(status("w1", 5, bed=bed) for bed in beds))
    for bed in beds:
        one.hears(status("w2", 6, bed=bed))
    assert "home/icu/0 and 2 more at broker:1883" in one.alarm
    one.claims.engine(engine("w2", online=False))
    assert (one.told[-1].present, one.told[-1].condition) == (False, "bed-taken")


def test_a_pattern_that_matches_nothing_is_named_with_what_there_is() -> None:
    patterns = Patterns(["home/icu/+", "home/er/1", "home/engine/+"])
    for place in ("home/icu/1", "home/ward/1", "home/ward/2", "home/engine/w1", "away/icu/1"):
        patterns.match(place)
    assert patterns.without == ["home/er/1"]
    said = patterns.warning("broker:1883")
    assert (
        said == "no bed at broker:1883 matches 'home/er/1'; there are away/icu/1, home/ward/1, home/ward/2: is it site/unit/bed?"
    )
    assert "no other bed is known there" in Patterns(["home/er/1"]).warning("broker:1883")
    many = Patterns(["x/y/z"])
    for k in range(300):
        many.match(f"home/icu/{k:03}")
    assert many.warning("b").endswith("home/icu/007 and 92 more: is it site/unit/bed?")


def test_another_receiver_of_our_name_is_known_by_what_we_did_not_confirm() -> None:
    clock = ManualClock()
    other = OtherReceiver("central-1", clock)
    other.said(b"ours")
    other.heard("central-1", b"ours")
    other.heard("central-2", b"theirs")
    assert not other.there
    other.heard("central-1", b"theirs")
    assert other.there
    clock._now_ns += 36 * 10**9
    assert not other.there
