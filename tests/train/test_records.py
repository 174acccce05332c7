"""Reading the databases: leads, splits and statements of known records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecgnat_stream.codes import RHYTHMS
from ecgnat_stream.signal import LEADS
from train.labels import UNSTATED, allow, forbid
from train.prepare import prepare
from train.records import HOLDOUT, Record, read_database, read_splits

pytestmark = pytest.mark.data


def one(root: Path, database: str, name: str) -> Record:
    return next(iter(read_database(root, database, {name: "train"})))


def there(record: Record) -> list[str]:
    return [LEADS[slot] for slot in np.flatnonzero(np.isfinite(record.samples).any(axis=1))]


def test_splits_hold_out_and_never_touch_test(data_root: Path) -> None:
    splits = read_splits(data_root)
    for database, names in HOLDOUT.items():
        assert [splits[database][name] for name in names] == ["holdout"] * len(names)
    assert splits["mitdb"]["100"] == "test"
    assert set(splits["nsrdb"].values()) == {"test"}


def test_mitdb(data_root: Path) -> None:
    record = one(data_root, "mitdb", "203")
    assert (record.fs, there(record)) == (360.0, ["II", "V1"])
    assert {allow("AF"), allow("VT")} <= set(np.unique(record.rhythm).tolist())


def test_vfdb(data_root: Path) -> None:
    record = one(data_root, "vfdb", "422")
    assert there(record) == ["II", "V1"]
    assert (record.rhythm == allow("VF")).sum() / record.fs == pytest.approx(520, abs=2)


def test_cudb_states_vf_by_its_episodes(data_root: Path) -> None:
    record = one(data_root, "cudb", "cu01")
    assert set(np.unique(record.rhythm).tolist()) == {allow("VF"), forbid("VF"), forbid("VF", "ASYSTOLE", "NOISE")}
    assert np.isnan(record.samples[1]).sum() == 0 or np.isfinite(record.samples[1]).any()


def test_cinc2015_true_and_false_alarms(data_root: Path) -> None:
    record = one(data_root, "cinc2015", "a103l")
    assert record.bag == -1
    assert (record.rhythm[-2500:] == forbid("ASYSTOLE")).all()
    assert (record.rhythm[:-2500] == UNSTATED).all()
    splits = read_splits(data_root)["cinc2015"]
    bags = {RHYTHMS[r.bag] for r in read_database(data_root, "cinc2015", splits) if r.bag >= 0}
    assert bags == {"ASYSTOLE", "VT", "VF"}


def test_ptbxl_has_twelve_leads_and_diagnoses(data_root: Path) -> None:
    record = one(data_root, "ptbxl", "00001")
    assert there(record) == list(LEADS)
    assert record.window == 1
    assert (record.rhythm == allow("SINUS")).all()


@pytest.mark.parametrize("database", ["ludb", "cinc2020"])
def test_twelve_lead_rhythms(data_root: Path, database: str) -> None:
    splits = dict(list(read_splits(data_root)[database].items())[:25])
    records = list(read_database(data_root, database, splits))
    assert len(records) == 25
    assert all(there(record) == list(LEADS) for record in records)
    assert allow("SINUS") in {int(record.rhythm[0]) for record in records}


def test_the_cache_holds_what_the_stream_would_see(data_root: Path, tmp_path: Path) -> None:
    small = tmp_path / "data"
    small.mkdir()
    for folder in ("cudb", "nstdb"):
        (small / folder).symlink_to(data_root / folder)
    (small / "splits.csv").write_text("database,record,split\ncudb,cu01,train\n")
    rows = prepare(small, tmp_path / "cache", ("cudb",))
    assert [(row.name, row.slots) for row in rows] == [("cu01", (1,))]
    assert rows[0].length == pytest.approx(127_232 / 250 * 100, abs=40)
    stored = np.fromfile(tmp_path / "cache" / "leads.f16", np.float16)
    assert len(stored) == rows[0].length
    assert np.nanstd(stored.astype(np.float32)) > 0.1
