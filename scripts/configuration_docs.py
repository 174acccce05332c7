"""Write docs/configuration.md from the configuration structs: ``python scripts/configuration_docs.py``."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import msgspec

from ecgnat_stream.config import BedConfig, Config
from ecgnat_stream.device import adapter, device_names
from ecgnat_stream.settings import bounds_of

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"

HEAD = """# Configuration

`ecgnat run CONFIG.toml` reads one TOML file. Every key has a default, so a file may be as short as this:

```toml
[[bed]]
id = "1"
device = "replay"
options = { path = "mitdb/100" }
```

- `ecgnat run --example` prints a longer one to start from.
- `ecgnat run --check CONFIG.toml` tries out everything that it names, and tells all faults in one go.
- An unknown key, a wrong type or a value out of bounds is an error that names its path.
- Every number has bounds with a reason. No value that is accepted can switch a high alarm off;
  [how much one can delay it](alarms.md#what-can-delay-a-high-alarm) is proved by a test. The bounds hold for settings that are
  made in Python too. NaN and infinity are refused everywhere.
- A file may have 1 MB, a monitor 4000 beds. `ecgnat bench` says how many a machine should be given
  ([commands](commands.md#how-many-beds)).
- Paths may begin with `~` or `$NAME`: [how paths and addresses are read](commands.md#paths-and-addresses). Text is UTF-8,
  with or without a byte order mark.
- Units stand in the names: `_s` seconds, `_hz` hertz, `_mv` millivolts, `_bpm` beats per minute.

`python scripts/configuration_docs.py` writes this page from the settings themselves.

"""


def meanings(kind: type) -> dict[str, str]:
    """Return the meaning of every field from a numpydoc ``Parameters`` section."""
    text = inspect.getdoc(kind) or ""
    _, _, section = text.partition("Parameters\n----------\n")
    found: dict[str, str] = {}
    for match in re.finditer(r"^(\w[\w, ]*)\n((?:    .*\n?|\n)+)", section, flags=re.M):
        meaning = " ".join(match[2].split())
        found |= {name.strip(): meaning for name in match[1].split(",")}
    return found


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    if field.default_factory is not msgspec.NODEFAULT:
        return f"`{field.default_factory()!r}`"
    return (
        "unset"
        if field.default is None
        else f"`{str(field.default).lower() if isinstance(field.default, bool) else repr(field.default)}`"
    )


def _structs(kind: Any) -> list[type[msgspec.Struct]]:
    options = getattr(kind, "__args__", (kind,))
    return [option for option in options if isinstance(option, type) and issubclass(option, msgspec.Struct)]


def table(title: str, kind: type[msgspec.Struct]) -> str:
    """Return the section of one table: its summary, then a row per key."""
    meaning = meanings(kind)
    summary = (inspect.getdoc(kind) or "").partition("\n\nParameters\n")[0]
    lines = [f"## {title}", "", " ".join(summary.split()), "", "| key | default | bounds | meaning |", "|---|---|---|---|"]
    for field in msgspec.structs.fields(kind):
        if _structs(field.type) or field.name == "bed":
            continue
        if field.name not in meaning:
            sys.exit(f"{kind.__name__}.{field.name} has no entry in its docstring's Parameters")
        within = bounds_of(kind).get(field.name)
        bounds = f"{within.low:,g} to {within.high:,g}" if within else ""
        text = meaning[field.name] + (f" *Bounds: {within.reason}.*" if within else "")
        lines.append(f"| `{field.encode_name}` | {_default(field)} | {bounds} | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return the whole page."""
    sections = [table("Top level", Config), table("`[[bed]]`", BedConfig)]
    for field in msgspec.structs.fields(Config):
        sections += [table(f"`[{field.name}]`", kind) for kind in _structs(field.type) if field.name != "bed"]
    sections += [table(f"`options` of the device `{name}`", adapter(name).Options) for name in device_names()]
    return HEAD + "\n".join(sections)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
