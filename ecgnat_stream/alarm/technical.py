"""The conditions of the equipment: what the monitor cannot do, how urgent that is, and which lead is to blame.

Two sources. :class:`SignalWatch` finds leads off, unusable and lost signal in the observations, in stream time; every other
condition is reported by the stage that noticed it, as an ``events.Technical``, and gets its priority here, once.
"""

from __future__ import annotations

from ecgnat_stream.alarm.config import AlarmConfig
from ecgnat_stream.alarm.picture import Condition, Finding, Observation, Picture
from ecgnat_stream.alarm.rules import SETTLE_S
from ecgnat_stream.codes import Priority
from ecgnat_stream.events import Technical

__all__ = ["MOMENTARY_S", "TECHNICAL", "SignalWatch", "reported"]

TECHNICAL: dict[str, Condition] = {
    "worker-lost": Condition("high", False, "the monitoring worker is lost"),
    "model-failed": Condition("high", False, "the network has failed: rhythm is judged by beats and the fibrillation detector"),
    "alarms-lost": Condition("high", False, "alarm events are being lost"),
    "unwatched": Condition("high", False, "the bed is not watched"),
    "overload": Condition("high", False, "the monitor is too slow for its beds"),
    "sink-stuck": Condition("high", False, "an alarm receiver does not take its alarms"),
    "unconfirmed": Condition("high", False, "alarms not confirmed"),
    "delivery-refused": Condition("high", False, "the message broker refuses messages"),
    "name-taken": Condition("high", False, "another monitor runs under this monitor's name"),
    "bed-taken": Condition("high", False, "another monitor has the same bed"),
    "no-data": Condition("medium", False, "no data from the device"),
    "leads-off": Condition("medium", False, "leads off"),
    "signal-missing": Condition("medium", False, "the device delivers no values"),
    "noise": Condition("medium", False, "the signal is not usable"),
    "wrong-units": Condition("high", False, "the amplitude is not that of a heart: wrong units? The rhythm is not judged"),
    "rate-mismatch": Condition("medium", False, "the device sends at another rate than it says: rates and times are off"),
    "network-paused": Condition("low", False, "the network looks at other beds for now: rhythm is judged by beats"),
    "model-late": Condition("medium", False, "the network is late"),
    "broker-lost": Condition("medium", False, "the message broker is lost"),
    "publisher-failed": Condition("medium", False, "the ZeroMQ publisher has failed"),
    "recorder-failed": Condition("medium", False, "the recorder has failed"),
    "history-failed": Condition("medium", False, "the alarm history is not being written"),
    "gap": Condition("low", False, "signal was lost"),
    "clipped": Condition("low", False, "the recording cannot hold the signal"),
    "clock-jump": Condition("low", False, "a clock has jumped"),
    "malformed-frame": Condition("low", False, "a malformed frame was dropped"),
    "peer-flood": Condition("low", False, "a peer asked for too much"),
}
"""Priority of every technical condition when nothing else carries on; none latches. One not listed here is medium."""

MOMENTARY_S = {"gap": 10.0, "clock-jump": 10.0, "malformed-frame": 10.0, "peer-flood": 10.0}
"""Conditions that have no end of their own are shown for so long."""

_OFF, _MISSING = "off", "missing"

_UNJUDGED = ("noise", "signal-missing", "leads-off", "wrong-units")
"""What says that a signal which is not usable cannot be judged."""


def _finding(condition: str, priority: Priority, detail: str, onset_s: float | None, lead: str | None) -> Finding:
    about = TECHNICAL.get(condition, Condition("medium", False, condition))
    text = f"{about.text}: {detail}" if detail else about.text
    return Finding(condition, "technical", priority, about.latching, text, onset_s, lead)


def reported(event: Technical) -> Finding:
    """Return the finding for a condition that a stage reports."""
    priority = TECHNICAL[event.condition].priority if event.condition in TECHNICAL else "medium"
    return _finding(event.condition, priority, event.detail, event.at_s, event.lead)


class SignalWatch:
    """Finds in one bed's observations why its signal cannot be judged, frame by frame.

    Parameters
    ----------
    config
        Delays.
    """

    def __init__(self, config: AlarmConfig) -> None:
        self._config = config
        self.reset()

    def reset(self) -> None:
        """Forget everything: another stream begins."""
        self._off_since_s: float | None = None
        self._unusable_since_s: float | None = None
        self._gap_at_s: float | None = None
        self._gap_s = 0.0
        self._wrong_since_s: float | None = None
        self._judged_s: float | None = None

    def watch(self, observation: Observation, before_s: float) -> list[Finding]:
        """Return the technical conditions that are present at the end of this observation, which begins at ``before_s``."""
        if observation.usable and not observation.leads and observation.gap_s <= 0 and self._gap_at_s is None:
            self._off_since_s = self._unusable_since_s = self._wrong_since_s = None
            return []
        unusable = self._unusable if observation.wrong_mv is None else self._wrong_units
        found = [self._leads_off(observation, before_s), unusable(observation, before_s), self._gap(observation)]
        return [finding for finding in found if finding is not None]

    @property
    def calm(self) -> bool:
        """Whether nothing is remembered here but up to where the signal was judged."""
        return self._gap_at_s is None and self._off_since_s is self._unusable_since_s is self._wrong_since_s is None

    def pass_over(self, at_s: float) -> None:
        """Take note that the signal up to ``at_s`` was judged without a break."""
        self._judged_s = at_s

    def interrupted(self, observation: Observation, picture: Picture, before_s: float, found: list[Finding]) -> list[Finding]:
        """Return ``noise`` if the signal breaks off so often that the rules begin anew before they could find a heart that stops.

        Each of the breaks may be too short to be told. The signal is judged where a beat is seen once the detector has settled,
        and where no beat for so long is asystole. ``found`` may say already why it is not.
        """
        told = any(finding.condition in _UNJUDGED for finding in found) and not observation.usable
        at_s, since_s = observation.at_s, picture.since_s
        seen_s = at_s - since_s if since_s is not None else 0.0
        judged = seen_s >= SETTLE_S and bool(observation.beats or seen_s >= SETTLE_S + self._config.asystole_s)
        if judged or told:
            self._judged_s = at_s
        elif self._judged_s is None or observation.gap_s > self._config.noise_delay_s:
            self._judged_s = before_s  # what was lost at one time has been told
        lasted_s = at_s - self._judged_s
        if lasted_s < SETTLE_S + self._config.asystole_s + self._config.noise_delay_s:
            return []
        priority: Priority = "medium" if lasted_s >= self._config.noise_medium_s else "low"
        return [_finding("noise", priority, "it breaks off too often to be judged", self._judged_s, None)]

    def _leads_off(self, observation: Observation, before_s: float) -> Finding | None:
        off = [lead for lead, state in observation.leads if state == _OFF]
        if not off:
            self._off_since_s = None
            return None
        if self._off_since_s is None:
            self._off_since_s = before_s
        if observation.at_s - self._off_since_s < self._config.leads_off_delay_s:
            return None
        names = ", ".join(off)
        if observation.usable:
            return _finding("leads-off", "low", names, self._off_since_s, off[0])
        return _finding("leads-off", "medium", f"{names}; no lead is usable", self._off_since_s, off[0])

    def _unusable(self, observation: Observation, before_s: float) -> Finding | None:
        if observation.usable:
            self._unusable_since_s = None
            return None
        if self._unusable_since_s is None:
            self._unusable_since_s = before_s
        since_s, leads = self._unusable_since_s, observation.leads
        lasted_s = observation.at_s - since_s
        if lasted_s < self._config.noise_delay_s or any(state == _OFF for _, state in leads):
            return None
        if leads and all(state == _MISSING for _, state in leads):
            return _finding("signal-missing", "medium", ", ".join(lead for lead, _ in leads), since_s, leads[0][0])
        priority: Priority = "medium" if lasted_s >= self._config.noise_medium_s else "low"
        reason = ", ".join(f"{lead} {state}" for lead, state in leads)
        return _finding("noise", priority, reason, since_s, leads[0][0] if leads else None)

    def _wrong_units(self, observation: Observation, before_s: float) -> Finding:
        if self._wrong_since_s is None:
            self._wrong_since_s = before_s
        about = TECHNICAL["wrong-units"]
        text = f"amplitude of {_rounded(observation.wrong_mv or 0.0)} mV: wrong units? The rhythm is not judged"
        return Finding("wrong-units", "technical", about.priority, about.latching, text, self._wrong_since_s)

    def _gap(self, observation: Observation) -> Finding | None:
        if observation.gap_s >= self._config.gap_s:
            self._gap_at_s, self._gap_s = observation.at_s, observation.gap_s
        if self._gap_at_s is None:
            return None
        if observation.at_s - self._gap_at_s >= MOMENTARY_S["gap"]:
            self._gap_at_s = None
            return None
        return _finding("gap", "low", f"{self._gap_s:.1f} s", self._gap_at_s - self._gap_s, None)


def _rounded(size: float) -> str:
    """Return a size as a person says it: 0.001, 1000."""
    return f"{float(f'{size:.1g}'):g}"
