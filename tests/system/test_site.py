"""The documentation site builds without a warning, holds the API, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="the site needs the dependency group docs")
pytest.importorskip("mkdocstrings", reason="the site needs the dependency group docs")

ROOT = Path(__file__).parents[2]
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


class Loaded(HTMLParser):
    """Collects the addresses that a browser loads with a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in LOADED and (tag != "link" or given.get("rel") in ("stylesheet", "preload", "icon")):
            self.addresses.append(given.get(LOADED[tag]) or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [str(ROOT / "scripts" / "docs"), "--site-dir", str(folder)], env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    yield folder


def test_the_api_is_there(site: Path) -> None:
    wanted = {
        "analysis": ["analyse", "Analysis", "diagnose"],
        "monitor": ["Monitor", "events"],
        "devices": ["stream_device", "check_device", "SampleBlock"],
        "events": ["Alarm", "Rhythm", "alarm_id"],
        "networks": ["Predictor"],
        "config": ["load_config"],
    }
    for page, names in wanted.items():
        text = (site / "api" / f"{page}.html").read_text(encoding="utf-8")
        for name in names:
            assert re.search(rf"\b{name}\b", text), f"{page}: {name}"
        assert ":class:" not in text and ":func:" not in text, page


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        reader = Loaded()
        reader.feed(page.read_text(encoding="utf-8"))
        assert not [address for address in reader.addresses if re.match(r"(https?:)?//", address)], page
    for styled in [*site.rglob("*.css"), *site.rglob("*.svg")]:
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", styled.read_text(encoding="utf-8")), styled
