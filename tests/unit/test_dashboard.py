"""The dashboard, driven by textual's pilot on a bus that the test feeds; time moves only by the manual clock."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta

import numpy as np
import pytest
from textual.pilot import Pilot

from ecgnat_stream.bus import Bus
from ecgnat_stream.clock import ManualClock
from ecgnat_stream.codes import Codes
from ecgnat_stream.events import (
    Alarm,
    Command,
    CommandResult,
    DeviceStatus,
    EngineStatus,
    LeadQuality,
    Meta,
    Quality,
    Rhythm,
    Timing,
    Trace,
    Vitals,
)
from ecgnat_stream.signal import FRAME, FS
from ecgnat_stream.sink.dashboard import Dashboard, DashboardConfig
from ecgnat_stream.sink.dashboard.panels import shorten
from ecgnat_stream.testing import flushed

SMALL, LARGE = (80, 24), (140, 45)


class Desk:
    """A dashboard on a bus, with what a test needs to feed it and to read its screen."""

    def __init__(
        self, beds: tuple[str, ...] = ("site/icu/bed-1",), stay: bool = False, note: str = "", **options: object
    ) -> None:
        self.bus, self.clock = Bus(), ManualClock()
        self.sounds: list[str] = []
        config = DashboardConfig(**{"fps": 1.0, **options})  # type: ignore[arg-type]
        limits = dict.fromkeys(beds, (50.0, 120.0))
        self.dashboard = Dashboard(
            self.bus, self.clock, config, beds=beds, limits=limits, sound=self.sounds.append, stay=stay, note=note
        )
        self.bed = beds[0]
        self.commands: list[Command] = []
        self.bus.listen(self.commands.append, Command)  # type: ignore[arg-type]

    async def run(self, script: Callable[[Pilot[None]], Awaitable[None]], size: tuple[int, int] = SMALL) -> None:
        """Run the dashboard under a script, and end it."""

        async def pilot(pilot: Pilot[None]) -> None:
            await script(pilot)
            self.dashboard.app.exit()

        await self.dashboard.run(headless=True, size=size, auto_pilot=pilot)

    async def redraw(self, pilot: Pilot[None]) -> None:
        """Let the readers read and the views draw (a draw may change the layout, which the next one fills)."""
        await flushed(self.bus)
        for _ in range(4):
            self.dashboard.app.on_redraw()
            await pilot.pause()

    def screen(self) -> list[str]:
        """Return the text on the screen, one string per row."""
        strips = self.dashboard.app.screen._compositor.render_strips()
        return [strip.text.rstrip() for strip in strips]

    def area(self, selector: str) -> list[str]:
        """Return the text of one widget."""
        region = self.dashboard.app.query_one(selector).region
        lines = [line.ljust(region.right) for line in self.screen()]
        return [line[region.x : region.right].rstrip() for line in lines[region.y : region.bottom]]

    def online(self, bed: str | None = None) -> None:
        """Say that a bed's device delivers leads II and V1."""
        bed, time = bed or self.bed, self.clock.utc()
        self.bus.publish(Meta(bed=bed, time=time, leads=("II", "V1"), used_as=("II", "V1"), fs=250.0, uv_per_lsb=1.0,
                              device="scripted", live=True, session=1))  # fmt: skip
        self.bus.publish(DeviceStatus(bed=bed, time=time, state="online", session=1))

    def values(self, rate: float | None = 72.0, bed: str | None = None) -> None:
        """Publish vitals, rhythm and quality."""
        bed, time = bed or self.bed, self.clock.utc()
        self.bus.publish(Vitals(bed=bed, time=time, heart_rate_bpm=rate, rr_ms=None if rate is None else 60000 / rate))
        self.bus.publish(
            Rhythm(bed=bed, time=time, label="AF", text="atrial fibrillation or flutter", probability=0.97, probabilities={},
                   start_s=0, stop_s=1, window_start=0, window_stop=1, codes=Codes(), timing=Timing(0, 0, 0, 0))
        )  # fmt: skip
        leads = {"II": LeadQuality(0.95, "good"), "V1": LeadQuality(0.3, "noisy"), "V2": LeadQuality(0.0, "missing")}
        self.bus.publish(Quality(bed=bed, time=time, leads=leads, usable=True, best_lead="II"))

    def alarm(self, condition: str, text: str, bed: str | None = None, **changes: object) -> None:
        """Publish one phase of an alarm."""
        fields: dict[str, object] = {
            "kind": "physiological", "priority": "high", "phase": "start", "presence": "on", "sequence": 1,
            "alarm_id": condition, "event_id": "1", "onset_s": 1.0,
        }  # fmt: skip
        bed = self.bed if bed is None else bed
        self.bus.publish(Alarm(bed=bed, time=self.clock.utc(), condition=condition, text=text, **(fields | changes)))  # type: ignore[arg-type]

    def signal(self, frames: range, mv: Callable[[np.ndarray], np.ndarray], bed: str | None = None) -> None:
        """Publish frames of lead II and V1."""
        for k in frames:
            samples = np.full((12, FRAME), np.nan, dtype=np.float32)
            samples[[1, 6]] = mv((k * FRAME + np.arange(FRAME)) / FS)
            self.bus.publish(Trace(bed=bed or self.bed, time=self.clock.utc(), at_s=k * FRAME / FS, samples=samples))


def sine(t: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * t)


async def test_screen_of_one_bed_at_80x24() -> None:
    desk = Desk()

    async def script(pilot: Pilot[None]) -> None:
        desk.online()
        desk.values()
        desk.alarm("ventricular-fibrillation", "ventricular fibrillation")
        desk.bus.publish(EngineStatus(bed="", time=desk.clock.utc(), site="s", worker="w", online=True, session=1, model="nano"))
        await desk.redraw(pilot)
        assert desk.screen() == GOLDEN.strip("\n").split("\n")

    await desk.run(script)


GOLDEN = """
 site/icu/bed-1          Not a certified medical device            00:00:00 UTC
 PHYSIOLOGICAL ALARMS                            TECHNICAL ALARMS
 *** VENTRICULAR FIBRILLATION                        none


 II                                                      HR bpm ?         50-120
                                                                 ██████  ██████
  ⡖⢲                                                                 ██      ██
  ⡇⢸                                                                 ██  ██████
 ⣀⡇⢸⣀                                                                ██  ██
                                                                     ██  ██████
                                                         RR 833 ms ?

 V1                                                      RHYTHM             97 %
                                                         atrial fibrillation or
  ⡖⢲                                                     flutter
  ⡇⢸                                                     SIGNAL QUALITY
 ⣀⡇⢸⣀                                                    II  ████  good
                                                         V1  ▃▃▃▃  noisy


      ├──────────┤ 1 s   25 mm/s   10 mm/mV              DEVICE           ONLINE
 online                                                                    nano
 a ack  p pause  r reset  ⇥ next  w wall  l lead  +- gain  ? help  q quit
"""


async def test_alarms_appear_in_their_areas_with_marks_and_the_most_urgent_first() -> None:
    desk = Desk()

    async def script(pilot: Pilot[None]) -> None:
        desk.alarm("pvc", "many PVC", priority="low")
        desk.alarm("asystole", "asystole")
        desk.alarm("leads-off", "lead V1 off", kind="technical", priority="medium")
        desk.alarm("broker-lost", "broker lost", bed="", kind="technical", priority="low")
        await desk.redraw(pilot)
        assert [line.strip() for line in desk.area("#physiological")[1:]] == ["*** ASYSTOLE", "*   many PVC", ""]
        assert [line.strip() for line in desk.area("#technical")[1:]] == ["**  lead V1 off", "*   broker lost", ""]
        desk.alarm("asystole", "asystole", presence="latched", phase="update")
        await desk.redraw(pilot)
        assert desk.area("#physiological")[1].endswith("latched")
        desk.alarm("asystole", "asystole", presence="off", phase="end")
        await desk.redraw(pilot)
        assert desk.area("#physiological")[1].strip() == "*   many PVC"

    await desk.run(script)


async def test_more_alarms_than_rows_are_counted() -> None:
    desk = Desk()

    async def script(pilot: Pilot[None]) -> None:
        for i in range(5):
            desk.alarm(f"c{i}", f"condition {i}", priority="medium")
        await desk.redraw(pilot)
        assert desk.area("#physiological")[3].strip() == "**  and 3 more"

    await desk.run(script)


async def test_the_condition_and_its_number_stay_when_an_alarm_is_too_long() -> None:
    desk = Desk()
    tachycardia = "extreme tachycardia: 142 bpm over 6 beats"

    async def script(pilot: Pilot[None]) -> None:
        desk.alarm("vt", "ventricular tachycardia: 5 ventricular beats, 142 bpm")
        await desk.redraw(pilot)
        assert [line.strip() for line in desk.area("#physiological")[1:]] == [
            "*** VENTRICULAR TACHYCARDIA: 5 VENTRICULAR", "BEATS, 142 BPM", "",
        ]  # fmt: skip
        desk.alarm("et", tachycardia, presence="latched")
        desk.alarm("eb", "extreme bradycardia: below 30 bpm for 8 s", presence="acknowledged")
        await desk.redraw(pilot)
        assert [re.sub(" +", " ", line.strip()) for line in desk.area("#physiological")[1:]] == [
            "*** VENTRICULAR TACHYCARDIA: 142 BPM",
            "*** EXTREME TACHYCARDIA: 142 BPM latched",
            "*** EXTREME BRADYCARDIA <30 BPM acknowledged",
        ]
        desk.alarm("et", "", presence="off")
        desk.alarm("eb", "", presence="off")
        await pilot.press("w")
        await desk.redraw(pilot)
        await desk.redraw(pilot)
        assert desk.screen()[-3].strip() == "*** VENTRICULAR TACHYCARDIA: 5 VENTRICULAR BEATS, 142 BPM"

    await desk.run(script)


@pytest.mark.parametrize("room", range(8, 60))
def test_a_shortened_alarm_ends_with_its_number(room: int) -> None:
    text = shorten("EXTREME TACHYCARDIA: 142 BPM OVER 6 BEATS", room)
    assert len(text) <= room
    assert text.startswith("EXTREME"[: max(0, room - 9)])
    assert "142 BPM" in text or room < 13


@pytest.mark.parametrize(
    ("text", "room", "shown"),
    [
        ("extreme tachycardia: 142 bpm over 6 beats", 20, "extreme tac… 142 bpm"),
        ("extreme bradycardia: below 30 bpm for 8 s", 28, "extreme bradycardia <30 bpm"),
        ("asystole: no QRS for 4 s", 14, "asystole: 4 s"),
        ("asystole: no QRS for 4 s", 11, "asystole"),
        ("leads off: V1, V2, V3", 14, "leads off: V1…"),
        ("the message broker is lost", 14, "the message b…"),
    ],
)
def test_what_is_left_of_a_long_alarm(text: str, room: int, shown: str) -> None:
    assert shorten(text, room) == shown


async def test_tiles_of_80x24_show_condition_and_number() -> None:
    desk = Desk(tuple(f"s/u/{i}" for i in range(12)))

    async def script(pilot: Pilot[None]) -> None:
        desk.alarm("et", "extreme tachycardia: 142 bpm over 6 beats", bed="s/u/0")
        desk.alarm("b", "heart rate low: below 50 bpm", bed="s/u/1", priority="medium", presence="acknowledged")
        for _ in range(2):
            await desk.redraw(pilot)
        (line,) = (line for line in desk.screen() if "EXTREME" in line)
        assert " ".join(line.split()) == "*** EXTREME TAC… 142 BPM ** heart … <50 bpm ack"

    await desk.run(script)


@pytest.mark.parametrize("presence", ["on", "latched"])
async def test_no_fault_of_the_equipment_hides_a_heart_in_danger_on_a_tile(presence: str) -> None:
    desk = Desk(tuple(f"s/u/{i}" for i in range(12)))

    async def script(pilot: Pilot[None]) -> None:
        desk.alarm("unconfirmed", "alarms not confirmed", bed="s/u/0", kind="technical", onset_s=None, presence=presence)
        desk.alarm("asystole", "asystole: no QRS for 4 s", bed="s/u/0", presence=presence)
        for _ in range(2):
            await desk.redraw(pilot)
        assert sum("*** ASYSTOLE" in line for line in desk.screen()) == 1

    await desk.run(script)


async def test_the_wall_shows_what_concerns_every_bed() -> None:
    desk = Desk(("s/u/0", "s/u/1"))

    async def script(pilot: Pilot[None]) -> None:
        fault = {"bed": "", "kind": "technical", "onset_s": None}
        desk.alarm("broker-lost", "the message broker is lost", priority="medium", **fault)
        desk.alarm("sink-stuck", "an alarm receiver does not take its alarms", **fault)
        await desk.redraw(pilot)
        (line,) = (line for line in desk.screen() if "ALARM RECEIVER" in line)
        assert line.startswith(" *** AN ALARM RECEIVER DOES NOT TAKE ITS ALARMS") and line.endswith(" and 1 more")

    await desk.run(script)


async def test_what_a_bed_and_the_engine_say_alike_takes_one_row() -> None:
    desk = Desk()

    async def script(pilot: Pilot[None]) -> None:
        fault = {"kind": "technical", "onset_s": None}
        desk.alarm("unconfirmed", "alarms not confirmed", alarm_id="bed", **fault)
        desk.alarm("unconfirmed", "alarms not confirmed", bed="", alarm_id="engine", **fault)
        desk.alarm("broker-lost", "the message broker is lost", bed="", priority="medium", **fault)
        await desk.redraw(pilot)
        rows = ["*** ALARMS NOT CONFIRMED", "**  the message broker is lost", ""]
        assert [line.strip() for line in desk.area("#technical")[1:]] == rows

    await desk.run(script)


async def test_a_heart_rate_during_fibrillation_is_marked_as_doubtful() -> None:
    desk = Desk()

    def bold() -> set[bool]:
        segments = [s for strip in desk.dashboard.app.screen._compositor.render_strips() for s in strip]
        return {bool(s.style.bold) for s in segments if s.style and "██████" in s.text}

    async def script(pilot: Pilot[None]) -> None:
        desk.online()
        desk.values(rate=142)
        desk.alarm("tachycardia", "heart rate high", priority="medium")
        await desk.redraw(pilot)
        assert "HR bpm  " in desk.area("#numbers")[0] and bold() == {True}
        for presence in ("on", "acknowledged"):
            desk.alarm("ventricular-fibrillation", "ventricular fibrillation", presence=presence)
            await desk.redraw(pilot)
            numbers = desk.area("#numbers")
            assert "HR bpm ?" in numbers[0] and any("RR 423 ms ?" in line for line in numbers)
            assert bold() == {False}
        await pilot.press("w")
        await desk.redraw(pilot)
        assert desk.screen()[2].rstrip().endswith("  ?")
        desk.alarm("ventricular-fibrillation", "ventricular fibrillation", presence="latched")
        await pilot.press("enter")
        await desk.redraw(pilot)
        assert "?" not in "".join(desk.area("#numbers"))

    await desk.run(script)


async def test_the_status_line_never_counts_windows_that_were_not_reported() -> None:
    desk = Desk(note="mqtt://127.0.0.1:41883")

    def engine(**changes: object) -> None:
        fields: dict[str, object] = {"site": "s", "worker": "w", "online": True, "session": 1}
        desk.bus.publish(EngineStatus(bed="", time=desk.clock.utc(), **(fields | changes)))  # type: ignore[arg-type]

    async def script(pilot: Pilot[None]) -> None:
        desk.online()
        await desk.redraw(pilot)
        assert desk.screen()[-2].endswith("mqtt://127.0.0.1:41883   network loading")
        engine()
        await desk.redraw(pilot)
        assert desk.screen()[-2].endswith("network loading")
        engine(model="nano")
        await desk.redraw(pilot)
        assert desk.screen()[-2].endswith(":41883   nano")
        engine(model="nano", windows=12)
        await desk.redraw(pilot)
        assert desk.screen()[-2].endswith(":41883   nano 12 windows")
        desk.bus.publish(DeviceStatus(bed=desk.bed, time=desk.clock.utc(), state="offline", detail="x" * 60, session=1))
        await desk.redraw(pilot)
        assert "mqtt" not in desk.screen()[-2] and desk.screen()[-2].endswith("nano 12 windows")

    await desk.run(script)


NASTY = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\u200b\n[@click=app.quit]go[/] [red]"


@pytest.mark.parametrize("size", [SMALL, (160, 45)])
@pytest.mark.parametrize("view", ["bed", "wall"])
async def test_text_from_outside_neither_moves_the_cursor_nor_is_markup(view: str, size: tuple[int, int]) -> None:
    desk = Desk(("b/1", "b/2"), view=view)

    async def script(pilot: Pilot[None]) -> None:
        now = desk.clock.utc()
        desk.online("b/1")
        desk.bus.publish(Meta(bed="b/1", time=now, leads=(NASTY, "V1"), used_as=("II", "V1"), fs=250.0, uv_per_lsb=1.0,
                              device=NASTY, live=True, session=1))  # fmt: skip
        desk.bus.publish(DeviceStatus(bed="b/1", time=now, state="online", detail=NASTY, session=1))
        desk.bus.publish(EngineStatus(bed="", time=now, site="s", worker="w", online=True, session=1, model=NASTY, detail=NASTY))
        refusal = CommandResult(bed="b/1", time=now, accepted=False, action=NASTY, reason=NASTY, source=NASTY)
        for noticed in (
            desk.alarm("noise", NASTY, "b/1", kind="technical", priority="medium", by=NASTY, lead=NASTY),
            desk.alarm("asystole", NASTY, "b/1"), desk.bus.publish(refusal),
        ):  # fmt: skip
            assert noticed is None
            await desk.redraw(pilot)
            strips = desk.dashboard.app.screen._compositor.render_strips()
            for segment in (segment for strip in strips for segment in strip):
                assert segment.text.isprintable(), segment
                assert segment.style is None or not any("click" in key for key in segment.style.meta)
        assert "@CLICK=APP.QUIT]GO[/]" in "".join(desk.screen()).upper()
        await pilot.press("q")
        await desk.redraw(pilot)
        assert all(line.isprintable() for line in desk.screen())

    await desk.run(script, size)


async def test_keys_publish_commands_for_the_bed_on_display() -> None:
    desk = Desk(("b/1", "b/2"), view="bed", pause_s=60)

    async def script(pilot: Pilot[None]) -> None:
        await desk.redraw(pilot)
        await pilot.press("a", "tab", "p", "r")
        await pilot.pause()
        assert [(c.bed, c.action, c.duration_s) for c in desk.commands] == [
            ("b/1", "acknowledge", None), ("b/2", "pause", 60), ("b/2", "resume", None), ("b/2", "reset", None),
        ]  # fmt: skip
        assert len({c.correlation for c in desk.commands}) == 4

    await desk.run(script)


async def test_a_key_on_a_bed_without_alarms_is_meant_for_the_worker_which_answers() -> None:
    desk = Desk(("b/1",), view="bed")

    async def script(pilot: Pilot[None]) -> None:
        now = desk.clock.utc()
        desk.bus.publish(EngineStatus(bed="", time=now, site="s", worker="w", online=True, session=1, model="m"))
        desk.alarm("broker-lost", "MQTT broker lost", "", kind="technical", priority="medium")
        await desk.redraw(pilot)
        await pilot.press("a")
        await pilot.pause()
        assert [(c.bed, c.action) for c in desk.commands] == [("s/engine/w", "acknowledge")]
        desk.bus.publish(CommandResult(bed="", time=now, accepted=True, action="acknowledge", source="dashboard"))
        await desk.redraw(pilot)
        assert "worker: acknowledge accepted" in desk.screen()[-2]
        desk.alarm("asystole", "asystole", "b/1")
        await desk.redraw(pilot)
        await pilot.press("a")
        await pilot.pause()
        assert [c.bed for c in desk.commands[1:]] == ["b/1", "s/engine/w"]

    await desk.run(script)


async def test_without_a_keyboard_no_keys_are_offered() -> None:
    desk = Desk(stay=True)
    desk.dashboard.keys = False

    async def script(pilot: Pilot[None]) -> None:
        await desk.redraw(pilot)
        assert desk.screen()[-1].strip() == "no keys: standard input is no terminal; Ctrl+C ends the monitor"
        desk.bus.close()
        await desk.redraw(pilot)
        assert "recording ended - Ctrl+C quits" in desk.screen()[-2]

    await desk.run(script)


async def test_pause_counts_down_silently_and_ends() -> None:
    desk = Desk()

    async def script(pilot: Pilot[None]) -> None:
        until = desk.clock.utc() + timedelta(seconds=120)
        desk.alarm("asystole", "asystole", inactivation="audio-paused", paused_until=until)
        await desk.redraw(pilot)
        assert "SOUND PAUSED 2:00" in desk.area("#physiological")[0]
        await desk.clock.advance(61)
        await desk.redraw(pilot)
        assert "SOUND PAUSED 0:59" in desk.area("#physiological")[0]
        assert desk.sounds == []
        await desk.clock.advance(60)
        await desk.redraw(pilot)
        assert "PAUSED" not in desk.area("#physiological")[0]
        assert desk.sounds[:1] == ["high"]

    await desk.run(script)


async def test_values_are_cleared_when_the_device_is_gone_or_silent() -> None:
    desk = Desk()

    def shown() -> bool:
        numbers = [line.strip() for line in desk.area("#numbers")]
        return "RR 833 ms" in numbers and "flutter" in numbers

    async def script(pilot: Pilot[None]) -> None:
        desk.online()
        desk.values()
        await desk.redraw(pilot)
        assert shown()
        desk.bus.publish(DeviceStatus(bed=desk.bed, time=desk.clock.utc(), state="offline", detail="link lost", session=1))
        await desk.redraw(pilot)
        assert not shown() and "RR ---" in "".join(desk.area("#numbers"))
        assert "offline: link lost" in desk.screen()[-2]
        desk.online()
        await desk.redraw(pilot)
        assert not shown()
        desk.values()
        await desk.redraw(pilot)
        assert shown()
        await desk.clock.advance(10.5)
        await desk.redraw(pilot)
        assert not shown()
        desk.values(rate=None)
        await desk.redraw(pilot)
        assert "RR ---" in "".join(desk.area("#numbers"))

    await desk.run(script)


async def test_wall_of_nine_beds_in_stable_order() -> None:
    names = tuple(f"s/u/bed {i}" for i in (10, 2, 1, 3, 4, 5, 6, 7, 8))
    desk = Desk(names)

    async def script(pilot: Pilot[None]) -> None:
        for name in names:
            desk.online(name)
        desk.values(rate=131, bed="s/u/bed 10")
        desk.alarm("asystole", "asystole", bed="s/u/bed 2")
        await desk.redraw(pilot)
        screen = desk.screen()
        shown = re.findall(r"bed \d+", "\n".join(screen))
        assert shown == [f"bed {i}" for i in (1, 2, 3, 4, 5, 6, 7, 8, 10)]
        assert any("*** ASYSTOLE" in line for line in screen) and any("131  atrial fibr" in line for line in screen)
        await pilot.press("right", "enter")
        await desk.redraw(pilot)
        assert desk.screen()[0].startswith(" s/u/bed 2 ")
        assert "*** ASYSTOLE" in desk.area("#physiological")[1]
        await pilot.press("w")
        await desk.redraw(pilot)
        assert desk.screen()[0].startswith(" 9 beds")

    await desk.run(script)


async def test_wall_of_64_beds_scrolls_to_the_chosen_one() -> None:
    desk = Desk(tuple(f"s/u/{i:02}" for i in range(64)))

    async def script(pilot: Pilot[None]) -> None:
        await desk.redraw(pilot)
        assert not any("▶63" in line for line in desk.screen())
        await pilot.press("left")
        await desk.redraw(pilot)
        await desk.redraw(pilot)
        assert any("▶63" in line for line in desk.screen())

    await desk.run(script)


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_names_and_texts_are_not_markup(size: tuple[int, int]) -> None:
    desk = Desk(("s/u/[red]bed[/red]", "s/u/[/]"))

    async def script(pilot: Pilot[None]) -> None:
        desk.alarm("odd", "lead [bold]V1[/] off", kind="technical", priority="low")
        await desk.redraw(pilot)
        wall = "\n".join(desk.screen())
        assert "[red]bed[/red]" in wall or "red]" in wall
        assert "[/]" in wall
        await pilot.press("enter")
        await desk.redraw(pilot)
        assert "s/u/[red]bed[/red]" in desk.screen()[0] or "s/u/[/]" in desk.screen()[0]

    await desk.run(script, size)


async def test_a_gap_in_the_signal_is_left_open() -> None:
    desk = Desk()

    async def script(pilot: Pilot[None]) -> None:
        desk.online()
        desk.signal(range(5), sine)
        desk.signal(range(5, 10), lambda t: np.full_like(t, np.nan))
        desk.signal(range(10, 15), sine)
        await desk.redraw(pilot)
        await desk.clock.advance(3)
        await desk.redraw(pilot)
        view = desk.area("TraceView")
        rows = [line.ljust(55)[6:] for line in view]
        gap = "".join(row[14:24] for row in rows[:-1])
        assert gap.strip() == ""
        assert set(rows[-1][14:24]) - {" "} != set()
        assert "".join(row[1:11] for row in rows).strip() and "".join(row[26:36] for row in rows).strip()

    await desk.run(script)


async def test_a_flood_is_read_out_without_growing() -> None:
    desk = Desk()

    async def script(pilot: Pilot[None]) -> None:
        desk.online()
        await flushed(desk.bus)
        for i in range(10_000):
            desk.bus.publish(Vitals(bed=desk.bed, time=desk.clock.utc(), heart_rate_bpm=float(i % 200), rr_ms=float(i)))
        assert desk.bus.statistics()["dashboard"]["waiting"] == 1
        desk.signal(range(10_000), sine)
        assert desk.bus.statistics()["dashboard"]["waiting"] <= 1025
        await desk.redraw(pilot)
        assert "RR 9999 ms" in "".join(desk.area("#numbers"))
        assert desk.dashboard.app._message_queue.qsize() <= 10

    await desk.run(script)


async def test_no_color_leaves_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    desk = Desk()

    async def script(pilot: Pilot[None]) -> None:
        desk.online()
        desk.alarm("asystole", "asystole")
        await desk.redraw(pilot)
        segments = [s for strip in desk.dashboard.app.screen._compositor.render_strips() for s in strip]
        colours = {c.name for s in segments if s.style for c in (s.style.color, s.style.bgcolor) if c is not None}
        assert colours <= {"default"}
        line = next(s for s in segments if "*** ASYSTOLE" in s.text)
        assert line.style is not None and line.style.bold

    await desk.run(script)


async def test_sixteen_colours_are_ansi_colours() -> None:
    desk = Desk(colour="16")

    async def script(pilot: Pilot[None]) -> None:
        desk.online()
        desk.alarm("asystole", "asystole")
        await desk.redraw(pilot)
        segments = [s for strip in desk.dashboard.app.screen._compositor.render_strips() for s in strip]
        numbers = {
            c.number for s in segments if s.style for c in (s.style.color, s.style.bgcolor) if c is not None and not c.is_default
        }
        assert numbers and None not in numbers and max(n for n in numbers if n is not None) < 16

    await desk.run(script)


async def test_lead_and_gain_keys() -> None:
    desk = Desk()

    async def script(pilot: Pilot[None]) -> None:
        desk.online()
        desk.signal(range(3), sine)
        await desk.redraw(pilot)
        await pilot.press("l", "plus", "1")
        await desk.redraw(pilot)
        assert desk.area("TraceView")[0].startswith(" V1")
        assert "20 mm/mV" in desk.area("#ruler")[0]
        assert sum(view.display for view in desk.dashboard.app.query("TraceView")) == 1

    await desk.run(script)


async def test_refused_command_is_shown_and_help_opens() -> None:
    desk = Desk()

    async def script(pilot: Pilot[None]) -> None:
        time = desk.clock.utc()
        desk.bus.publish(CommandResult(bed=desk.bed, time=time, accepted=False, action="pause", reason="nothing to pause"))
        await desk.redraw(pilot)
        assert "pause REFUSED: nothing to pause" in desk.screen()[-2]
        await pilot.press("question_mark")
        await pilot.pause()
        assert any("acknowledge the alarms" in line for line in desk.screen())
        await pilot.press("x")
        await pilot.pause()
        assert not any("acknowledge the alarms" in line for line in desk.screen())

    await desk.run(script)


async def test_q_ends_run_and_takes_the_subscriptions_off_the_bus() -> None:
    desk = Desk()

    async def pilot(pilot: Pilot[None]) -> None:
        await pilot.press("q")

    await desk.dashboard.run(headless=True, size=SMALL, auto_pilot=pilot)
    assert desk.bus.statistics() == {}


async def test_closing_the_bus_ends_run() -> None:
    desk = Desk()
    run = asyncio.create_task(desk.dashboard.run(headless=True, size=SMALL))
    desk.values()
    desk.bus.close()
    await asyncio.wait_for(run, 30)
    assert desk.dashboard.board.beds[desk.bed].online is False


async def test_cancelling_run_closes_cleanly() -> None:
    desk = Desk()
    started = asyncio.Event()

    async def pilot(pilot: Pilot[None]) -> None:
        started.set()

    run = asyncio.create_task(desk.dashboard.run(headless=True, size=SMALL, auto_pilot=pilot))
    await started.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert desk.bus.statistics() == {}


async def test_after_a_recording_the_dashboard_stays_with_its_last_alarms_until_q() -> None:
    desk = Desk(stay=True)

    async def pilot(pilot: Pilot[None]) -> None:
        desk.online()
        desk.alarm("asystole", "asystole")
        desk.alarm("over", "over before the end", priority="medium")
        desk.alarm("over", "over before the end", priority="medium", presence="off", phase="end")
        desk.bus.publish(DeviceStatus(bed=desk.bed, time=desk.clock.utc(), state="ended", session=1))
        desk.alarm("asystole", "asystole", presence="off", phase="end")
        desk.bus.close()
        await desk.redraw(pilot)
        assert desk.screen()[-2].strip() == "recording ended - q quits"
        assert [re.sub(" +", " ", line.strip()) for line in desk.area("#physiological")[1:]] == ["*** ASYSTOLE ended", "", ""]
        assert not desk.dashboard.board.audible(desk.clock.utc())
        await pilot.press("q")

    await asyncio.wait_for(desk.dashboard.run(headless=True, size=SMALL, auto_pilot=pilot), 30)
    assert desk.bus.statistics() == {}


@pytest.mark.parametrize("first", ["leave", "close"])
async def test_a_monitor_that_is_told_to_stop_ends_a_dashboard_that_would_stay(first: str) -> None:
    desk = Desk(stay=True)

    async def pilot(pilot: Pilot[None]) -> None:
        steps = [desk.dashboard.leave, desk.bus.close]
        for step in steps if first == "leave" else steps[::-1]:
            step()
            await pilot.pause()

    await asyncio.wait_for(desk.dashboard.run(headless=True, size=SMALL, auto_pilot=pilot), 30)


async def test_a_bed_that_is_back_has_forgotten_the_alarms_its_recording_ended_with() -> None:
    desk = Desk()

    async def script(pilot: Pilot[None]) -> None:
        desk.online()
        desk.alarm("asystole", "asystole")
        desk.bus.publish(DeviceStatus(bed=desk.bed, time=desk.clock.utc(), state="ended", session=1))
        desk.alarm("asystole", "asystole", presence="off", phase="end")
        await desk.redraw(pilot)
        assert desk.area("#physiological")[1].endswith("ended")
        desk.online()
        await desk.redraw(pilot)
        assert desk.area("#physiological")[1].strip() == "none"

    await desk.run(script)


async def test_a_dashboard_that_cannot_read_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()

    async def pilot(_: Pilot[None]) -> None:
        monkeypatch.setattr(desk.dashboard.board, "apply", lambda *_: 1 / 0)
        desk.values()

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(desk.dashboard.run(headless=True, size=SMALL, auto_pilot=pilot), 30)
    assert desk.bus.statistics() == {}


async def leaving(desk: Desk, script: Callable[[Pilot[None]], Awaitable[None]]) -> None:
    """Run a dashboard that only the script's keys end."""
    await asyncio.wait_for(desk.dashboard.run(headless=True, size=SMALL, auto_pilot=script), 30)


QUESTION = " A HIGH ALARM IS ON - press q again to leave: bed-1, ventricular fibrillation"


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
@pytest.mark.parametrize("presence", ["on", "acknowledged", "latched"])
async def test_leaving_while_a_high_alarm_is_on_is_asked_about_once(key: str, presence: str) -> None:
    desk = Desk()

    async def script(pilot: Pilot[None]) -> None:
        desk.online()
        desk.alarm("ventricular-fibrillation", "ventricular fibrillation", presence=presence)
        await desk.redraw(pilot)
        await pilot.press(key)
        await desk.redraw(pilot)
        assert desk.dashboard.app.is_running
        assert desk.screen()[-2] == QUESTION
        await pilot.press(key)

    await leaving(desk, script)


@pytest.mark.parametrize("change", [{}, {"priority": "medium"}, {"presence": "off", "phase": "end"}])
async def test_leaving_without_a_high_alarm_is_not_asked_about(change: dict[str, object]) -> None:
    desk = Desk()

    async def script(pilot: Pilot[None]) -> None:
        desk.online()
        if change:
            desk.alarm("asystole", "asystole", **change)
        await desk.redraw(pilot)
        await pilot.press("q")

    await leaving(desk, script)


async def test_the_question_is_over_after_ten_seconds_and_is_asked_on_the_help_too() -> None:
    desk = Desk()

    async def script(pilot: Pilot[None]) -> None:
        desk.online()
        desk.alarm("ventricular-fibrillation", "ventricular fibrillation")
        await desk.redraw(pilot)
        await pilot.press("question_mark")
        await pilot.press("q")
        await desk.redraw(pilot)
        assert desk.screen()[-2] == QUESTION, "the help is closed, or nobody would see it"
        await desk.clock.advance(10.1)
        await desk.redraw(pilot)
        assert desk.screen()[-2] != QUESTION
        await pilot.press("q")
        await desk.redraw(pilot)
        assert desk.screen()[-2] == QUESTION, "asked anew"
        desk.alarm("ventricular-fibrillation", "ventricular fibrillation", presence="off", phase="end")
        await desk.redraw(pilot)
        await pilot.press("q")

    await leaving(desk, script)


async def test_a_monitor_that_is_told_to_stop_is_not_asked() -> None:
    desk = Desk(stay=True)

    async def script(pilot: Pilot[None]) -> None:
        desk.online()
        desk.alarm("asystole", "asystole")
        await desk.redraw(pilot)
        desk.dashboard.leave()
        desk.bus.close()

    await leaving(desk, script)
