"""What is released: one version, links that work on an index, a small wheel, and an sdist that is the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import ecgnat_stream
from ecgnat_stream import weights

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MODELS = ROOT / "models"


def build(target: str, folder: Path, into: Path) -> Path:
    """Build a wheel or an sdist with the backend alone and return it."""
    for package in ("hatchling", "hatch_fancy_pypi_readme"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(into)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    (built,) = into.glob("*")
    return built


def test_the_version_stands_in_one_place() -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "ecgnat_stream/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", ecgnat_stream.__version__)
    assert f"## [{ecgnat_stream.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_extra_takes_the_models_of_this_checkout() -> None:
    (extra,) = PROJECT["project"]["optional-dependencies"]["models"]
    text = (MODELS / "ecgnat_stream_models" / "__init__.py").read_text(encoding="utf-8")
    major, minor, _ = re.search(r'__version__ = "(\d+)\.(\d+)\.(\d+)"', text).groups()  # type: ignore[union-attr]
    assert extra == f"ecgnat-stream-models>={major}.{minor},<{major}.{int(minor) + 1}"
    assert (MODELS / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_links_of_the_readme_work_on_an_index() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for change in PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(change["pattern"], change["replacement"].replace("$HFPR_VERSION", ecgnat_stream.__version__), text)
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert targets
    assert all(target.startswith(("https://", "#")) for target in targets)
    tag = f"v{ecgnat_stream.__version__}"
    for path in re.findall(
        rf"https://(?:github\.com/[^/]+/[^/]+/blob|raw\.githubusercontent\.com/[^/]+/[^/]+)/{tag}/([^)#]+)", text
    ):
        assert (ROOT / path).exists(), path


def test_versions_of_what_run_installs_stand_in_pyproject() -> None:
    text = (ROOT / "run").read_text(encoding="utf-8")
    assert not re.findall(r"(?:torch|natten)[<>=~]", text)
    body = re.search(r"^requirement\(\) \{.*?<<'EOF'\n(.*?)^EOF$", text, flags=re.M | re.S)
    assert body is not None
    for name, lines in (
        ("torch", PROJECT["project"]["dependencies"]),
        ("natten", PROJECT["project"]["optional-dependencies"]["natten"]),
    ):
        asked = [sys.executable, "-c", body[1], str(ROOT / "pyproject.toml"), name]
        assert subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip() in lines


def test_every_package_says_that_it_is_typed() -> None:
    for package in ("ecgnat_stream", "devices/ecgnat_devices", "train", "models/ecgnat_stream_models"):
        assert (ROOT / package / "py.typed").is_file(), package


def test_the_wheel_is_small_and_holds_the_monitors_network(tmp_path: Path) -> None:
    wheel = build("wheel", ROOT, tmp_path)
    assert wheel.name.startswith(f"ecgnat_stream-{ecgnat_stream.__version__}-")
    assert wheel.stat().st_size < 10e6
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        text = content.read(metadata).decode()
    assert {name for name in names if name.endswith(".safetensors")} == {"ecgnat_stream/weights/ecgnat-nano/model.safetensors"}
    assert {"ecgnat_stream/py.typed", "ecgnat_stream/weights/SHA256SUMS", "ecgnat_devices/replay.py"} <= names
    assert "](docs/" not in text
    assert f"/blob/v{ecgnat_stream.__version__}/docs/" in text


def test_the_second_wheel_holds_the_others(tmp_path: Path) -> None:
    with zipfile.ZipFile(build("wheel", MODELS, tmp_path)) as content:
        found = {Path(name).parent.name for name in content.namelist() if name.endswith(".safetensors")}
    assert found == set(weights.known()) - {weights.DEFAULT}


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="this is no checkout of git")
def test_the_sdist_is_the_checkout(tmp_path: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    with tarfile.open(build("sdist", ROOT, tmp_path)) as content:
        packed = {name.partition("/")[2] for name in content.getnames()}
    missing = {name for name in tracked if (ROOT / name).exists() and not name.startswith((".ci/", ".github/"))} - packed
    assert not missing


def _locked() -> list[tuple[str, str, int]]:
    """Return name, version and number of hashes of each line of the lock; some packages have several, for several Pythons."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    line = r"^([a-z0-9-]+)(?:\[[^]]*\])?==(\S+)[^\n]*((?:\n +--hash=sha256:[0-9a-f]{64}(?: \\)?)*)"
    return [(name, version, hashes.count("sha256:")) for name, version, hashes in re.findall(line, text, flags=re.M)]


def test_the_lock_has_what_pyproject_asks_for() -> None:
    requirements = pytest.importorskip("packaging.requirements")
    for line in PROJECT["project"]["dependencies"]:
        asked = requirements.Requirement(line)
        versions = [version for name, version, _ in _locked() if name == asked.name]
        assert versions, f"{asked.name} is not in requirements.lock: run scripts/lock"
        assert all(asked.specifier.contains(version) for version in versions), f"requirements.lock has {versions} for {line}"


def test_the_lock_names_packages_and_hashes_and_no_place() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    locked = _locked()
    assert len(locked) == len(lines) > 30
    assert all(hashes for *_, hashes in locked)
    assert not re.search(r"://|file:|^-|@", text, flags=re.M)


@pytest.mark.skipif(
    shutil.which("cyclonedx-py", path=str(Path(sys.executable).parent)) is None, reason="cyclonedx-bom is not installed"
)
def test_the_bill_of_materials_lists_the_lock_and_is_the_same_each_time(tmp_path: Path) -> None:
    made = [tmp_path / "one.json", tmp_path / "two.json"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for into in made:
        subprocess.run([ROOT / "scripts" / "sbom", into], env=environment, check=True, capture_output=True, timeout=120)
    assert made[0].read_bytes() == made[1].read_bytes()
    bill = json.loads(made[0].read_text(encoding="utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    listed = [(one["name"], one["version"]) for one in bill["components"]]
    assert sorted(listed) == sorted((name, version) for name, version, _ in _locked())
    assert all("hashes" in one["externalReferences"][0] for one in bill["components"])
