"""The predictor: batches, missing data, the worker thread, what it says about itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ecgnat_stream.codes import BEATS, RHYTHMS, SCREENS
from ecgnat_stream.errors import CheckpointError, ConfigError
from ecgnat_stream.model import ARCHITECTURES, EcgNat, ModelCard, ModelConfig, Predictor, build, configured, save_checkpoint, size
from ecgnat_stream.model.checkpoint import Calibration, load_checkpoint
from ecgnat_stream.model.predict import calibrate, fold_batch_norm
from ecgnat_stream.model.preprocess import prepare
from ecgnat_stream.signal import MODEL_FS, Conditioned


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = EcgNat(size("nano"))
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
        network.rhythm_head.linear.weight.normal_()
    card = ModelCard(model=network.config, calibration=Calibration(temperature=2.0, bias=(0.5,) * 8))
    return save_checkpoint(tmp_path_factory.mktemp("model"), network, card)


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Iterator[Predictor]:
    with Predictor(ModelConfig(name=str(checkpoint), max_batch=8)) as predictor:
        yield predictor


def windows(count: int, seed: int = 0) -> np.ndarray:
    return (0.3 * np.random.default_rng(seed).standard_normal((count, 12, 1000))).astype(np.float32)


def at_100(samples: np.ndarray) -> Conditioned:
    return Conditioned(samples, MODEL_FS)


def test_shapes_and_probabilities(predictor: Predictor) -> None:
    prediction = predictor.predict(at_100(windows(3)))
    assert prediction.rhythm.shape == (3, 32, len(RHYTHMS))
    assert prediction.window.shape == (3, len(predictor.window_classes))
    assert prediction.screen.shape == (3, len(SCREENS))
    assert prediction.beat.shape == (3, 128, 2 + len(BEATS))
    for distribution in (prediction.rhythm, prediction.screen, prediction.beat[..., 2:]):
        np.testing.assert_allclose(distribution.sum(axis=-1), 1.0, atol=1e-5)
    assert ((prediction.beat >= 0) & (prediction.beat <= 1)).all()
    assert prediction.token_s == 0.32
    assert predictor.rhythm_classes == RHYTHMS


def test_equals_the_plain_network(predictor: Predictor, checkpoint: Path) -> None:
    network, card = load_checkpoint(checkpoint)
    x = windows(4)
    with torch.inference_mode():
        logits = network(prepare(torch.from_numpy(x))).rhythm
    expected = calibrate(logits, card.calibration.temperature, card.calibration.bias).numpy()
    np.testing.assert_allclose(predictor.predict(at_100(x)).rhythm, expected, atol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 5, 8, 9, 19])
def test_a_row_does_not_depend_on_its_batch(predictor: Predictor, count: int) -> None:
    x = windows(count)
    x[1:] *= 20
    together = predictor.predict(at_100(x))
    alone = predictor.predict(at_100(x[:1]))
    np.testing.assert_allclose(together.rhythm[:1], alone.rhythm, atol=1e-5)
    np.testing.assert_allclose(together.window[:1], alone.window, atol=1e-5)


def test_nothing_at_all_gives_finite_probabilities(predictor: Predictor) -> None:
    x = windows(2)
    x[1] = np.nan
    prediction = predictor.predict(at_100(x))
    assert np.isfinite(prediction.rhythm).all()
    np.testing.assert_allclose(prediction.rhythm[:1], predictor.predict(at_100(windows(2))).rhythm[:1], atol=1e-5)


def test_any_length_and_foreign_memory_order(predictor: Predictor) -> None:
    x = windows(2)[:, :, ::2]
    assert predictor.predict(at_100(x)).rhythm.shape == (2, 16, 8)


def test_submit_runs_in_the_worker_thread(predictor: Predictor) -> None:
    seen: list[str] = []
    done = threading.Event()
    predictor.submit(at_100(windows(1))).add_done_callback(lambda _: (seen.append(threading.current_thread().name), done.set()))
    assert done.wait(30)
    assert seen[0].startswith(("model", "MainThread"))
    futures = [predictor.submit(at_100(windows(1, seed))) for seed in range(4)]
    ready = [future.result().ready_ns for future in futures]
    assert ready == sorted(ready)


def test_what_was_submitted_may_be_written_over(checkpoint: Path) -> None:
    with Predictor(ModelConfig(name=str(checkpoint))) as predictor:
        x = windows(1)
        wanted = predictor.predict(at_100(x)).rhythm
        started, go = threading.Event(), threading.Event()
        predictor._worker.submit(lambda: (started.set(), go.wait(30)))
        assert started.wait(30)
        waiting = predictor.submit(at_100(x))
        x[:] = 0
        go.set()
        np.testing.assert_allclose(waiting.result().rhythm, wanted, atol=1e-6)


def test_batches_are_padded_to_the_few_sizes_that_were_compiled(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(torch, "compile", lambda network, dynamic: lambda x: (seen.append(len(x)), network(x))[1])
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/c++" if name == "c++" else None)
    with Predictor(ModelConfig(name=str(checkpoint), max_batch=12, compile="on")) as predictor:
        assert predictor.buckets == (1, 2, 4, 8, 12)
        seen.clear()
        for count in (1, 3, 7, 9, 13, 30):
            predictor.predict(at_100(windows(count)))
        assert set(seen) <= set(predictor.buckets)


def test_describe_says_what_runs(predictor: Predictor) -> None:
    said = predictor.describe()
    for part in ("nano", "1.29 M", "banded attention", "eager", "thread"):
        assert part in said


def test_compiled_means_every_batch_size_is_warm_before_service(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def compiled(network: torch.nn.Module, dynamic: bool) -> Callable[[torch.Tensor], object]:
        assert not dynamic
        return lambda x: (seen.append(len(x)), network(x))[1]

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/c++" if name == "c++" else None)
    with Predictor(ModelConfig(name=str(checkpoint), compile="on", device="cpu", max_batch=4)) as predictor:
        assert seen == [1, 2, 4]
        assert "compiled (compile = on; no package: ecgnat compile)" in predictor.describe()


@pytest.mark.parametrize("arch", ["beatnet", "clear", "ecgnat-hug"])
def test_what_changes_its_shapes_is_not_compiled(tmp_path: Path, arch: str) -> None:
    network = build(configured(arch, "nano"))
    save_checkpoint(tmp_path, network, ModelCard(model=network.config))
    with Predictor(ModelConfig(name=str(tmp_path), compile="on", max_batch=1)) as predictor:
        assert "eager (shapes differ from window to window)" in predictor.describe()


def test_without_a_compiler_it_runs_eager_and_says_so(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with Predictor(ModelConfig(name=str(checkpoint), compile="on", device="cpu", max_batch=2)) as predictor:
        assert "eager (no C++ compiler found; no package: ecgnat compile)" in predictor.describe()
        assert predictor.predict(at_100(windows(1))).rhythm.shape == (1, 32, 8)


def test_foreign_beats(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build(configured("beatnet", "nano"))
    path = save_checkpoint(tmp_path, network, ModelCard(model=network.config))
    beats = np.arange(50, 1000, 80, dtype=np.float32)[None].repeat(2, axis=0)
    with Predictor(ModelConfig(name=str(path))) as predictor:
        assert ": beatnet nano, " in predictor.describe() and "attention" not in predictor.describe()
        plain = predictor.predict(at_100(windows(2)), beats)
        for foreign in (beats.tolist(), beats.astype(">f8"), np.asfortranarray(beats), beats[:, ::-1].copy()[:, ::-1]):
            np.testing.assert_array_equal(predictor.predict(at_100(windows(2)), foreign).rhythm, plain.rhythm)  # type: ignore[arg-type]


def test_weights_that_overflow(tmp_path: Path) -> None:
    network = build(configured("clear", "nano"))
    with torch.no_grad():
        network.get_parameter("blocks.0.mlp.0.weight").fill_(1e38)
    path = save_checkpoint(tmp_path, network, ModelCard(model=network.config))
    with pytest.raises(CheckpointError, match="answers are not finite"):
        Predictor(ModelConfig(name=str(path)))


@pytest.mark.parametrize("shape", [(12, 1000), (0, 12, 1000), (1, 2, 1000), (1, 12, 0)])
def test_other_shapes_are_refused_at_once(predictor: Predictor, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="want windows"):
        predictor.submit(at_100(np.zeros(shape, np.float32)))


def test_windows_carry_their_rate(predictor: Predictor) -> None:
    x = windows(2)
    twice = np.repeat(x, 2, axis=2)
    np.testing.assert_array_equal(predictor.predict(Conditioned(twice, 200)).rhythm, predictor.predict(at_100(x)).rhythm)
    with pytest.raises(TypeError, match="have to carry their rate"):
        predictor.predict(x)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="250 Hz cannot be thinned out to 100 Hz"):
        predictor.predict(Conditioned(x, 250))


@pytest.mark.parametrize("changes", [{"max_batch": 0}, {"threads": -1}, {"window_s": 0.0}])
def test_a_wrong_configuration_says_so(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        Predictor(ModelConfig(**changes))  # type: ignore[arg-type]


def test_a_path_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        Predictor(ModelConfig(name=str(tmp_path / "nowhere")))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_cuda_where_there_is_none(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="no CUDA device"):
        Predictor(ModelConfig(name=str(checkpoint), device="cuda"))


@pytest.mark.parametrize("is_causal", [False, True])
def test_folding_batch_norm_changes_nothing(is_causal: bool) -> None:
    torch.manual_seed(1)
    network = EcgNat(size("nano", is_causal))
    for _ in range(3):
        network(prepare(torch.from_numpy(windows(4)), network.config.scaling))
    network.eval()
    x = prepare(torch.from_numpy(windows(2, 7)), network.config.scaling)
    with torch.inference_mode():
        before = network(x).rhythm.clone()
        after = fold_batch_norm(network)(x).rhythm
    assert not any(isinstance(module, torch.nn.BatchNorm1d) for module in network.modules())
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("arch", [arch for arch in ARCHITECTURES if build(configured(arch, "nano")).needs_beats])
def test_networks_that_read_heartbeats_are_given_them(tmp_path: Path, arch: str) -> None:
    torch.manual_seed(0)
    network = build(configured(arch, "nano"))
    save_checkpoint(tmp_path, network, ModelCard(model=network.config))
    beats = np.full((5, 14), np.nan, np.float32)
    for row, every in zip(beats, (60, 75, 90, 110, 2000), strict=True):
        found = np.arange(20, 1000, every)[:14]
        row[: len(found)] = found
    beats[4] = np.nan
    with Predictor(ModelConfig(name=str(tmp_path), max_batch=4)) as predictor:
        together = predictor.predict(at_100(windows(5)), beats)
        assert together.rhythm.shape == (5, 32, len(RHYTHMS))
        assert all(np.isfinite(array).all() for array in (together.rhythm, together.beat, together.window, together.screen))
        assert together.without_beats.tolist() == [False, False, False, False, True]
        found = np.flatnonzero(together.beat[0, :, 0] > 0.5) * 8
        assert len(found) == 14
        assert (np.abs(found + 4 - beats[0]) <= 8).all(), "beats are where they were given"
        for row in range(5):
            alone = predictor.predict(at_100(windows(5)[row : row + 1]), beats[row : row + 1])
            np.testing.assert_allclose(alone.rhythm[0], together.rhythm[row], atol=1e-5)
            np.testing.assert_allclose(alone.window[0], together.window[row], atol=1e-5)
        with pytest.raises(ValueError, match="give R peaks"):
            predictor.predict(at_100(windows(5)))
        with pytest.raises(ValueError, match=r"want beats \(5, N\)"):
            predictor.predict(at_100(windows(5)), beats[:3])
