"""The monitor's configuration: one frozen struct per stage, collected from TOML.

An unknown key, a wrong type or a value out of bounds is a :class:`~ecgnat_stream.errors.ConfigError` that names its path in
the file.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from typing import Annotated, Any

import msgspec

from ecgnat_stream.alarm import AlarmConfig
from ecgnat_stream.beats import BeatsConfig
from ecgnat_stream.condition import ConditionConfig
from ecgnat_stream.device import SuperviseConfig
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.fibrillation import FibrillationConfig
from ecgnat_stream.model import ModelConfig
from ecgnat_stream.places import file_bytes, text_of
from ecgnat_stream.quality import QualityConfig
from ecgnat_stream.rhythm import RhythmConfig
from ecgnat_stream.schedule import BEHIND_S, ScheduleConfig
from ecgnat_stream.settings import Settings, Within, read_settings
from ecgnat_stream.signal import LEADS
from ecgnat_stream.sink.dashboard.config import DashboardConfig
from ecgnat_stream.sink.history import HistoryConfig
from ecgnat_stream.sink.mqtt.config import MqttConfig, check_receiver
from ecgnat_stream.sink.record import RecordConfig
from ecgnat_stream.sink.zmq import ZmqConfig
from ecgnat_stream.suggest import unknown
from ecgnat_stream.watchdog import WatchdogConfig

__all__ = ["MOST_BEDS", "BedConfig", "Config", "load_config", "parse_config", "read_table"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

MOST_BEDS = 4000
"""Beds of one process: more than any machine carries in one event loop. ``ecgnat bench`` says how many it should be given."""

_LONE_CR = re.compile(r"\r(?!\n)")

LARGEST_FILE = 1_000_000
"""Bytes of a configuration file; that of 4000 beds has about 800,000."""


def _check_name(path: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{path} = {name!r}: only letters, digits, '.', '_' and '-' (it becomes part of a topic)")


class BedConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One bed and the device that serves it.

    Parameters
    ----------
    id
        Name of the bed, unique within its unit.
    device
        Name of the adapter; ``ecgnat devices`` lists them. Empty only where the device is given as an object.
    options
        The adapter's options.
    unit
        Overrides the monitor's ``unit``.
    lead_map
        Device lead name to standard lead, or to "" to leave it out; for names that are not recognised.
    alarm
        This bed's own limits: any keys of the ``alarm`` table.
    confirm
        The receiver that has to confirm this bed's alarm events, instead of ``mqtt.confirm``; "" for none.
    """

    id: str
    device: str = ""
    options: dict[str, Any] = {}
    unit: str | None = None
    lead_map: dict[str, str] = {}
    alarm: dict[str, Any] = {}
    confirm: str | None = None

    def __post_init__(self) -> None:
        _check_name("bed.id", self.id)
        check_receiver("bed.confirm", self.confirm or "")
        if self.unit is not None:
            _check_name("bed.unit", self.unit)
        for name, lead in self.lead_map.items():
            if lead and lead not in LEADS:
                raise ConfigError(f"bed {self.id}: lead_map: {name!r} is mapped to an {unknown('lead', lead, LEADS)}")


class Config(Settings, frozen=True, kw_only=True):
    """All settings of one monitor process.

    Parameters
    ----------
    site
        First part of every topic: ``ecg/v1/{site}/{unit}/{bed}/...``.
    unit
        Second part of a bed's topics; a bed may name another.
    worker
        Name of this monitor: ``ecg/v1/{site}/engine/{worker}/...``. Empty: the machine's name, and with a number behind it if
        other monitors run there.
    ring_s
        Seconds of raw signal kept per bed.
    model_late_s
        Longest time that a live bed's alarms wait for the network, in s.
    bed
        The beds.
    mqtt, zmq, record, history
        The sinks; left out, they are off.
    """

    site: str = "site"
    unit: str = "unit"
    worker: str = ""
    ring_s: Annotated[
        float, Within(5, 600, "shorter holds less than the filters look ahead and a burst brings, longer only takes memory")
    ] = 20.0
    model_late_s: Annotated[
        float, Within(0.5, 5, "every alarm of a live bed waits so long for a network that does not answer")
    ] = 2.0
    bed: tuple[BedConfig, ...] = ()
    device: SuperviseConfig = SuperviseConfig()
    condition: ConditionConfig = ConditionConfig()
    quality: QualityConfig = QualityConfig()
    beats: BeatsConfig = BeatsConfig()
    fibrillation: FibrillationConfig = FibrillationConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    model: ModelConfig = ModelConfig()
    rhythm: RhythmConfig = RhythmConfig()
    alarm: AlarmConfig = AlarmConfig()
    watchdog: WatchdogConfig = WatchdogConfig()
    dashboard: DashboardConfig = DashboardConfig()
    mqtt: MqttConfig | None = None
    zmq: ZmqConfig | None = None
    record: RecordConfig | None = None
    history: HistoryConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("site", "unit", "worker"):
            if key != "worker" or self.worker:
                _check_name(key, getattr(self, key))
        if len(self.bed) > MOST_BEDS:
            raise ConfigError(f"bed: {len(self.bed)} beds are more than the {MOST_BEDS} of one process; start several monitors")
        names = Counter(self.name_of(bed) for bed in self.bed)
        twice = sorted(name for name, times in names.items() if times > 1)
        if twice:
            raise ConfigError(f"bed: {', '.join(twice)} is configured more than once; give every bed an id of its own")
        for bed in self.bed:
            self.alarm_of(bed)
            if bed.confirm and self.mqtt is None:
                raise ConfigError(f"bed {bed.id}: confirm = {bed.confirm!r} needs [mqtt]: receivers confirm over MQTT")
        # A network that reads what is new may be told of the last 10 s at once.
        longest_s = max(self.schedule.window_s, BEHIND_S)
        if self.rhythm.history_s < longest_s + 2 * self.schedule.hop_s:
            raise ConfigError(
                f"rhythm.history_s = {self.rhythm.history_s:g} must be at least two hops longer than schedule.window_s, and than "
                f"{BEHIND_S:g} s: {longest_s + 2 * self.schedule.hop_s:g}"
            )

    @property
    def patience_s(self) -> float:
        """Longest time that a stage may rightly take before it says why a bed is not being judged, and 2 s; in s."""
        alarms = [self.alarm, *map(self.alarm_of, self.bed)]
        delays = [max(alarm.noise_delay_s, alarm.leads_off_delay_s) for alarm in alarms]
        return max(self.device.stall_s, self.model_late_s, *delays) + 2.0

    @property
    def receivers(self) -> dict[str, str]:
        """Bed, or ``site/engine/worker``, to the receiver that has to confirm its alarms; "" for none."""
        every = self.mqtt.confirm if self.mqtt is not None else ""
        beds = {self.name_of(bed): every if bed.confirm is None else bed.confirm for bed in self.bed}
        return {f"{self.site}/engine/{self.worker}": every, **beds}

    def name_of(self, bed: BedConfig) -> str:
        """Return ``site/unit/bed``."""
        return f"{self.site}/{bed.unit or self.unit}/{bed.id}"

    def alarm_of(self, bed: BedConfig) -> AlarmConfig:
        """Return a bed's limits: those of all beds, and what is set for this one.

        Raises
        ------
        ConfigError
            Naming the bed, for a limit that does not exist, is of a wrong type or out of bounds.
        """
        if not bed.alarm:
            return self.alarm
        try:
            return read_settings(msgspec.structs.asdict(self.alarm) | bed.alarm, AlarmConfig, path="alarm")
        except ConfigError as error:
            raise ConfigError(f"bed {bed.id}: {error}") from error


def parse_config(table: dict[str, Any], source: str = "configuration") -> Config:
    """Build a :class:`Config` from parsed TOML.

    Raises
    ------
    ConfigError
        Naming the path of the key that is unknown, missing, of a wrong type or out of bounds.
    """
    try:
        return read_settings(table, Config)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def load_config(path: str | os.PathLike[str]) -> Config:
    """Read a TOML file.

    Raises
    ------
    ConfigError
        If there is no such file, if it is not TOML, and as :func:`parse_config`.
    """
    return parse_config(read_table(path), os.fspath(path))


def read_table(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a TOML file as a table, without looking at what it says.

    Raises
    ------
    ConfigError
        If there is no such file, if it is not TOML, or larger or deeper than any configuration.
    """
    try:
        content = file_bytes(path, LARGEST_FILE)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}; `ecgnat run --example` prints one to start from") from error
    try:
        text = text_of(content)
        if (lone := _LONE_CR.search(text)) is not None:
            line = text.count("\n", 0, lone.start()) + 1
            raise ConfigError(
                f"a line break (line {line}) is a CR alone, as old editors of the Mac write it: save it with LF, "
                "as Unix does (tr '\\r' '\\n')"
            )
        return tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(f"{path}: is not a configuration: tables within tables, more than can be read") from error
    except (ConfigError, ValueError) as error:  # not text, not TOML, or a number of more digits than Python reads
        raise ConfigError(f"{path}: is not TOML: {error}") from error
