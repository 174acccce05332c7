"""The monitor's configuration: one frozen struct per stage, collected from TOML.

An unknown key, a wrong type or a value out of bounds is a :class:`~ecgnat_stream.errors.ConfigError` that names its path in
the file.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec

from ecgnat_stream.alarm import AlarmConfig
from ecgnat_stream.beats import BeatsConfig
from ecgnat_stream.condition import ConditionConfig
from ecgnat_stream.device import SuperviseConfig
from ecgnat_stream.errors import ConfigError
from ecgnat_stream.fibrillation import FibrillationConfig
from ecgnat_stream.model import ModelConfig
from ecgnat_stream.quality import QualityConfig
from ecgnat_stream.rhythm import RhythmConfig
from ecgnat_stream.schedule import ScheduleConfig
from ecgnat_stream.settings import read_settings
from ecgnat_stream.sink.dashboard.config import DashboardConfig
from ecgnat_stream.sink.history import HistoryConfig
from ecgnat_stream.sink.mqtt.config import MqttConfig
from ecgnat_stream.sink.record import RecordConfig
from ecgnat_stream.sink.zmq import ZmqConfig

__all__ = ["BedConfig", "Config", "load_config", "parse_config"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


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
    """

    id: str
    device: str = ""
    options: dict[str, Any] = {}
    unit: str | None = None
    lead_map: dict[str, str] = {}
    alarm: dict[str, Any] = {}

    def __post_init__(self) -> None:
        _check_name("bed.id", self.id)
        if self.unit is not None:
            _check_name("bed.unit", self.unit)


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of one monitor process.

    Parameters
    ----------
    site
        First part of every topic: ``ecg/v1/{site}/{unit}/{bed}/...``.
    unit
        Second part of a bed's topics; a bed may name another.
    worker
        Name of this monitor: ``ecg/v1/{site}/engine/{worker}/...``.
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
    worker: str = "worker-1"
    ring_s: Annotated[float, msgspec.Meta(ge=5, le=600)] = 20.0
    model_late_s: Annotated[float, msgspec.Meta(ge=0.5, le=5)] = 2.0
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
    dashboard: DashboardConfig = DashboardConfig()
    mqtt: MqttConfig | None = None
    zmq: ZmqConfig | None = None
    record: RecordConfig | None = None
    history: HistoryConfig | None = None

    def __post_init__(self) -> None:
        for key in ("site", "unit", "worker"):
            _check_name(key, getattr(self, key))
        names = [self.name_of(bed) for bed in self.bed]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"bed: {', '.join(twice)} is configured more than once; give every bed an id of its own")
        for bed in self.bed:
            self.alarm_of(bed)
        if self.rhythm.history_s < self.schedule.window_s + 2 * self.schedule.hop_s:
            raise ConfigError(
                f"rhythm.history_s = {self.rhythm.history_s:g} must be at least two hops longer than schedule.window_s"
            )

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
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); `ecgnat run --example` prints one to start from"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    return parse_config(table, os.fspath(path))
