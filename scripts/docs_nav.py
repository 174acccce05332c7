"""A hook of mkdocs: an entry ``folder/*.md`` in the ``nav`` of mkdocs.yml stands for every page of that folder, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Replace every pattern of the navigation by the pages that it stands for."""
    config["nav"] = _expanded(config["nav"], Path(config["docs_dir"]))
    return config


def _expanded(entry: Any, docs: Path) -> Any:
    if isinstance(entry, dict):
        return {title: _expanded(value, docs) for title, value in entry.items()}
    if isinstance(entry, list):
        return [page for item in entry for page in (_pages(item, docs) if isinstance(item, str) else [_expanded(item, docs)])]
    return entry


def _pages(item: str, docs: Path) -> list[str]:
    return sorted(path.relative_to(docs).as_posix() for path in docs.glob(item)) if "*" in item else [item]
