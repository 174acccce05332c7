"""What of the alarm stage can be set, within which bounds, and why not beyond them.

A value out of bounds is refused with its key, the bounds and the reason. The five high-priority conditions have no off switch.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from ecgnat_stream.errors import ConfigError
from ecgnat_stream.settings import Settings, Within
from ecgnat_stream.suggest import unknown

__all__ = ["ALARM_WITHIN_S", "AlarmConfig"]

ALARM_WITHIN_S = 10.0
"""Longest time from onset to alarm for every high-priority condition (ANSI/AAMI EC13)."""

_NOT_SWITCHABLE = (
    "asystole",
    "ventricular-fibrillation",
    "ventricular-tachycardia",
    "extreme-tachycardia",
    "extreme-bradycardia",
)
_SWITCHABLE = (
    "supraventricular-tachycardia",
    "tachycardia",
    "bradycardia",
    "atrial-fibrillation",
    "ventricular-run",
    "r-on-t",
    "pause",
    "ventricular-pair",
    "ventricular-bigeminy",
    "ventricular-trigeminy",
    "frequent-pvc",
    "missed-beat",
    "irregular-rhythm",
)

_TOO_LATE = "beyond it the alarm could come later than 10 s after the onset; below it normal variation would alarm"
_ADULT = "outside it the limit means nothing in a patient"
_DELAY = "a longer delay hides the condition"
_COMMON = "below it nearly every heart alarms, beyond it no patient does"


class AlarmConfig(Settings, frozen=True, kw_only=True):
    """Limits and delays; the defaults follow the PhysioNet/CinC Challenge 2015 and ANSI/AAMI EC13.

    Parameters
    ----------
    asystole_s
        Time without a QRS complex that is asystole.
    vf_s
        Fibrillation or flutter this long within the last ``vf_s + 2`` s is ventricular fibrillation.
    vf_score
        A fibrillation score above this speaks for fibrillation, with the network and without.
    vt_beats
        This number of ventricular beats in a row, faster than ``vt_rate_bpm``, is ventricular tachycardia.
    vt_rate_bpm
        The rate that ventricular tachycardia exceeds.
    vt_s
        Ventricular tachycardia that the network sees this long within ``vf_s + 2`` s is one too, if the rate agrees.
    extreme_tachy_bpm
        A mean rate above this, over ``extreme_tachy_beats``, is extreme tachycardia.
    extreme_tachy_beats
        Number of beats over which that rate is taken.
    extreme_brady_bpm
        A mean rate below this, over ``extreme_brady_beats``, is extreme bradycardia; so are 8 s with longer intervals only.
    extreme_brady_beats
        Number of beats over which that rate is taken.
    hr_high_bpm
        A heart rate above this for ``hr_delay_s`` is tachycardia.
    hr_low_bpm
        A heart rate below this for ``hr_delay_s`` is bradycardia.
    hr_delay_s
        How long the heart rate must be beyond its limit.
    af_delay_s
        Atrial fibrillation is reported after this time, and its end too.
    svt_rate_bpm
        ``svt_beats`` faster than this, none ventricular, with a sudden onset, are supraventricular tachycardia.
    svt_beats
        Number of beats that supraventricular tachycardia needs.
    svt_delay_s
        Supraventricular tachycardia that the network sees this long is one too.
    rr_pause_s
        An interval of this length is a pause; not above ``asystole_s``.
    missed_beat_ratio
        An interval of a regular rhythm this much longer than the usual one is a missed beat.
    pvc_per_min
        More ventricular beats than this in the last minute are frequent.
    geminy_cycles
        This number of repetitions is bigeminy or trigeminy.
    r_on_t_share
        A ventricular beat within this share of the QT interval expected by Bazett's formula is R on T.
    irregular_share
        Neighbouring normal intervals that differ by more than this share of their median are irregular.
    event_s
        A run, an R on T and a pause are shown for this time after the last of them.
    ectopy_off_s
        A condition of low priority ends after being absent for this time: one alarm per stretch.
    off_delay_s
        Any other condition ends after being absent for this time.
    leads_off_delay_s
        A lead that is off for this time is reported.
    noise_delay_s
        Having no usable lead for this time is reported, with low priority.
    noise_medium_s
        After this time without a usable lead the priority becomes medium.
    gap_s
        Lost signal of at least this length is reported.
    pause_s
        Length of an audio pause when the command gives none.
    pause_max_s
        Longest audio pause that is accepted.
    reminder_s
        An acknowledged condition that is still present speaks up again after this time.
    disabled
        Conditions not to report, any of medium or low priority; the five of high priority cannot be switched off.
    """

    section: ClassVar[str] = "alarm"

    asystole_s: Annotated[float, Within(3, 10, _TOO_LATE)] = 4.0
    vf_s: Annotated[float, Within(3, 6, _TOO_LATE)] = 4.0
    vf_score: Annotated[float, Within(0.5, 0.95, "below it any rhythm would pass for fibrillation, beyond it none")] = 0.7
    vt_beats: Annotated[int, Within(3, 10, _TOO_LATE)] = 5
    vt_rate_bpm: Annotated[float, Within(80, 150, _ADULT)] = 100.0
    vt_s: Annotated[float, Within(2, 5, _TOO_LATE)] = 3.0
    extreme_tachy_bpm: Annotated[float, Within(110, 220, _ADULT)] = 140.0
    extreme_tachy_beats: Annotated[int, Within(5, 20, _TOO_LATE)] = 10
    extreme_brady_bpm: Annotated[float, Within(20, 50, _ADULT)] = 42.0
    extreme_brady_beats: Annotated[int, Within(3, 6, _TOO_LATE)] = 4
    hr_high_bpm: Annotated[float, Within(80, 210, _ADULT)] = 120.0
    hr_low_bpm: Annotated[float, Within(25, 80, _ADULT)] = 50.0
    hr_delay_s: Annotated[float, Within(0, 30, _DELAY)] = 10.0
    af_delay_s: Annotated[float, Within(5, 300, _DELAY)] = 15.0
    svt_rate_bpm: Annotated[float, Within(110, 220, _ADULT)] = 150.0
    svt_beats: Annotated[int, Within(5, 20, "fewer are a few early beats, more are not what is meant by a sudden onset")] = 8
    svt_delay_s: Annotated[float, Within(2, 60, _DELAY)] = 5.0
    rr_pause_s: Annotated[float, Within(2, 5, "shorter follows many an early beat; longer than asystole_s is never reached")] = (
        3.0
    )
    missed_beat_ratio: Annotated[
        float, Within(1.5, 2.5, "a missed beat doubles the interval; below 1.5 breathing and early beats would pass for one")
    ] = 1.8
    pvc_per_min: Annotated[int, Within(1, 60, _COMMON)] = 10
    geminy_cycles: Annotated[int, Within(3, 10, "fewer are chance, more come too rarely without a break")] = 3
    r_on_t_share: Annotated[float, Within(0.6, 1.1, "below it no beat follows another; above it lies behind the T wave")] = 0.9
    irregular_share: Annotated[float, Within(0.06, 0.4, _COMMON)] = 0.12
    event_s: Annotated[float, Within(10, 120, "shorter is not read, longer shows what has passed as if it were present")] = 30.0
    ectopy_off_s: Annotated[
        float, Within(30, 300, "shorter makes every early beat an alarm, longer shows what has passed as if it were present")
    ] = 60.0
    off_delay_s: Annotated[float, Within(2, 10, "shorter chatters, longer shows what has passed as if it were present")] = 5.0
    leads_off_delay_s: Annotated[float, Within(0, 10, _DELAY)] = 2.0
    noise_delay_s: Annotated[float, Within(1, 10, "bad signal must be reported before an unseen asystole would have been")] = 3.0
    noise_medium_s: Annotated[float, Within(5, 60, _DELAY)] = 15.0
    gap_s: Annotated[float, Within(0.2, 10, "shorter is a single late block, longer hides lost signal")] = 0.5
    pause_s: Annotated[float, Within(30, 180, "a pause ends before the reminder is due, after 2 to 3 minutes")] = 120.0
    pause_max_s: Annotated[float, Within(30, 180, "a pause ends before the reminder is due, after 2 to 3 minutes")] = 180.0
    reminder_s: Annotated[float, Within(120, 180, "a reminder comes after 2 to 3 minutes")] = 150.0
    disabled: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for condition in self.disabled:
            if condition in _NOT_SWITCHABLE:
                raise ConfigError(f"alarm.disabled: {condition} is of high priority and cannot be switched off")
            if condition not in _SWITCHABLE:
                raise ConfigError(f"alarm.disabled: {unknown('condition', condition, _SWITCHABLE)}")
        self._check_together()

    def _check_together(self) -> None:
        needed_s = (self.extreme_tachy_beats - 1) * 60 / self.extreme_tachy_bpm
        if needed_s > ALARM_WITHIN_S - 1:
            raise ConfigError(
                f"alarm.extreme_tachy_beats = {self.extreme_tachy_beats} at {self.extreme_tachy_bpm:g} bpm take {needed_s:.1f} s "
                f"and may take {ALARM_WITHIN_S - 1:g}: the alarm must come within {ALARM_WITHIN_S:g} s of the onset"
            )
        if not self.extreme_brady_bpm <= self.hr_low_bpm < self.hr_high_bpm <= self.extreme_tachy_bpm:
            raise ConfigError(
                f"alarm: extreme_brady_bpm {self.extreme_brady_bpm:g} <= hr_low_bpm {self.hr_low_bpm:g} < hr_high_bpm "
                f"{self.hr_high_bpm:g} <= extreme_tachy_bpm {self.extreme_tachy_bpm:g} must hold: "
                "the medium alarm comes before the high one"
            )
        if self.rr_pause_s > self.asystole_s:
            raise ConfigError(
                f"alarm.rr_pause_s = {self.rr_pause_s:g} is longer than alarm.asystole_s = {self.asystole_s:g}: "
                "such a pause is asystole already"
            )
        if self.pause_s > self.pause_max_s:
            raise ConfigError(f"alarm.pause_s = {self.pause_s:g} is longer than alarm.pause_max_s = {self.pause_max_s:g}")

    @property
    def rhythm_span_s(self) -> float:
        """Span over which the seconds of every rhythm class are to be counted for :class:`rules.Evidence`."""
        return self.vf_s + 2.0
