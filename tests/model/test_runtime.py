"""What computes the logits: packages that fit are used, others are not and say why; ONNX says what torch says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from ecgnat_stream.errors import ConfigError, EcgnatError
from ecgnat_stream.model import (
    EcgNat,
    EcgNatConfig,
    ModelCard,
    ModelConfig,
    Predictor,
    ahead,
    build,
    check_model,
    configured,
    package,
    runtime,
    save_checkpoint,
)
from ecgnat_stream.model.ahead import LookForm, WindowForm, make_onnx, make_package
from ecgnat_stream.model.checkpoint import load_checkpoint
from ecgnat_stream.model.package import Kind, find_package, keep_manifest, made_for, package_file
from ecgnat_stream.model.predict import fold_batch_norm
from ecgnat_stream.model.runtime import compiler
from ecgnat_stream.model.streaming import StepNetwork
from ecgnat_stream.signal import Conditioned, Window

CPU = torch.device("cpu")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelConfig:
    """Return the settings of a small network of random weights; this account's cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    model = EcgNatConfig(embed_dim=8, depths=(2, 1, 1, 1), num_heads=(1, 2, 2, 4))
    return ModelConfig(name=str(save_checkpoint(tmp_path / "small", EcgNat(model), ModelCard(model=model))), max_batch=6)


def windows(count: int) -> Conditioned:
    samples = np.random.default_rng(0).standard_normal((count, 12, 1000)).astype(np.float32)
    samples[0, 3:] = np.nan
    samples[-1, :, 700:] = np.nan
    return Conditioned(samples, 100)


@pytest.fixture
def causal(config: ModelConfig, tmp_path: Path) -> ModelConfig:
    """Return the settings of a small causal network."""
    model = EcgNatConfig(embed_dim=8, depths=(2, 1, 1, 1), num_heads=(1, 2, 2, 4), is_causal=True, scaling="fixed")
    checkpoint = save_checkpoint(tmp_path / "causal", EcgNat(model), ModelCard(model=model))
    return ModelConfig(name=str(checkpoint), max_batch=6, device="cpu")


def say_the_same(a: Predictor, b: Predictor) -> None:
    """Compare probabilities of beds that join at different times, begin anew, fall behind by some tokens, and grow in number."""
    drawn = np.random.default_rng(1)
    readers = a.reader(2), b.reader(2)
    for turn in range(14):
        beds = [bed for bed in range(9) if (turn + bed) % 3 and turn >= bed % 4]
        if not beds:
            continue
        some = []
        for bed in beds:
            tokens = 3 if (turn, bed) == (9, 2) else 1
            samples = drawn.standard_normal((12, 32 * tokens)).astype(np.float32)
            samples[3:, : 8 * bed] = np.nan
            some.append(Window(bed, 32 * turn, 32 * (turn + tokens), samples, 0, 0, fresh=(turn + bed) % 8 == 0))
        said, wanted = (reader.submit(some).result() for reader in readers)
        np.testing.assert_allclose(said.rhythm, wanted.rhythm, atol=1e-5)
        np.testing.assert_allclose(said.beat, wanted.beat, atol=1e-5)


def a_package(config: ModelConfig, kind: Kind = "window") -> Path:
    """Put something in the place of a package, with a manifest that fits."""
    checkpoint = Path(config.name)
    file = package_file(config, checkpoint, kind, CPU)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"code")
    return keep_manifest(file, made_for(config, checkpoint, kind, CPU))


def why_not(config: ModelConfig) -> str:
    found, said = find_package(config, Path(config.name), "window", CPU)
    assert found is None
    return said


def test_a_package_that_fits_is_found_and_used(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    file = a_package(config)
    assert find_package(config, Path(config.name), "window", CPU)[0] == file
    with Predictor(msgspec.structs.replace(config, compile="off")) as predictor:
        assert predictor.runtime.name == "eager" and "compile = off" in predictor.describe()
        wanted = predictor.predict(windows(3))
    loaded: list[Path] = []
    form = WindowForm(fold_batch_norm(load_checkpoint(config.name)[0]))
    monkeypatch.setattr(runtime, "load_package", lambda path: (loaded.append(path), form)[1])
    with Predictor(config) as predictor:
        assert loaded == [file]
        assert predictor.runtime.name == "package" and f"package ({file})" in predictor.describe()
        np.testing.assert_allclose(predictor.predict(windows(3)).rhythm, wanted.rhythm, atol=1e-6)


def test_a_step_that_fits_is_found_and_used(causal: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    file = a_package(causal, "step")
    form = LookForm(StepNetwork(fold_batch_norm(load_checkpoint(causal.name)[0])))
    lengths: list[int] = []

    def look(samples: torch.Tensor, rows: torch.Tensor, state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        lengths.append(samples.shape[2])
        return form(samples, rows, state)

    monkeypatch.setattr(runtime, "load_package", lambda path: look)
    with Predictor(causal) as packed, Predictor(msgspec.structs.replace(causal, compile="off")) as eager:
        assert f"token by token, package ({file})" in packed.describe()
        assert "token by token, eager (compile = off)" in eager.describe()
        say_the_same(packed, eager)
        assert set(lengths) == {32}, "torch takes longer steps"
    with Predictor(msgspec.structs.replace(causal, past="float16")) as other:
        assert "made for past 'float32', here it is 'float16'" in other.describe()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"torch": "2.1.0"}, "made for torch '2.1.0'"),
        ({"device": "NVIDIA H200"}, "made for device 'NVIDIA H200', here it is 'cpu'"),
        ({"processor": "x86_64 AVX512"}, "made for processor"),
        ({"threads": 8}, "made for threads 8, here it is 1"),
        ({"samples": 3000}, "made for samples 3000"),
        ({"checkpoint": "0"}, "made for another checkpoint"),
        ({"code": "0"}, "made for another code"),
        ({"max_batch": 5}, "batches of 5, not 6"),
        ({"package": "0"}, "is not the one that was made"),
    ],
)
def test_a_package_that_does_not_fit_is_not_used(config: ModelConfig, change: dict[str, Any], said: str) -> None:
    file = a_package(config)
    place = file.with_name(f"{file.name}.json")
    place.write_bytes(msgspec.json.encode(msgspec.json.decode(place.read_bytes()) | change))
    assert said in why_not(config)
    with Predictor(config) as predictor:
        assert predictor.runtime.name == "eager" and said in predictor.describe()


def test_other_weights_have_no_package(config: ModelConfig) -> None:
    a_package(config)
    model = EcgNatConfig(embed_dim=8, depths=(2, 1, 1, 1), num_heads=(1, 2, 2, 4))
    save_checkpoint(config.name, EcgNat(model), ModelCard(model=model))
    assert why_not(config) == "no package: ecgnat compile"


def test_what_others_can_write_to_is_not_run(config: ModelConfig) -> None:
    file = a_package(config)
    file.chmod(0o666)
    assert "others than this account can write" in why_not(config)


def test_a_damaged_manifest_is_told(config: ModelConfig) -> None:
    file = a_package(config)
    file.with_name(f"{file.name}.json").write_bytes(b"{")
    assert "cannot be used" in why_not(config) and why_not(config).endswith("ecgnat compile")


def test_packages_lie_in_the_folder_that_is_named(config: ModelConfig, tmp_path: Path) -> None:
    named = msgspec.structs.replace(config, packages=str(tmp_path / "packages"))
    assert tmp_path / "packages" in a_package(named).parents
    assert why_not(config) == "no package: ecgnat compile"


def test_without_a_compiler_it_says_what_to_install(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfigError, match=r"apt install g\+\+"):
        make_package(config)


def test_a_network_of_heartbeats_is_refused(tmp_path: Path) -> None:
    network = build(configured("beatnet", "nano"))
    save_checkpoint(tmp_path, network, ModelCard(model=network.config))
    with pytest.raises(ConfigError, match="differ from window to window"):
        make_package(ModelConfig(name=str(tmp_path)))


def test_what_computes_something_else_is_not_kept(config: ModelConfig) -> None:
    network = fold_batch_norm(load_checkpoint(config.name)[0])
    form = ahead._formed(config, network, onnx=False)
    said = form.module(*form.inputs)
    ahead._check(said, form)
    with pytest.raises(EcgnatError, match="it is not kept"):
        ahead._check([part + 0.01 for part in said], form)


def test_onnxruntime_reports_nothing_and_keeps_no_number_of_the_machine(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    unset = ("XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY")
    environment = {name: value for name, value in os.environ.items() if name not in unset} | {"HOME": str(tmp_path)}
    code = "from ecgnat_stream.model.runtime import import_onnxruntime as it; it()"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=300)
    assert list(tmp_path.rglob("*")) == []


def test_onnx_says_what_torch_says(config: ModelConfig) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    onnx = msgspec.structs.replace(config, runtime="onnx")
    with pytest.raises(ConfigError, match="no package: ecgnat compile --onnx"):
        Predictor(onnx)
    with pytest.raises(ConfigError, match="no package: ecgnat compile --onnx"):
        check_model(onnx)
    make_onnx(config)
    check_model(onnx)
    with Predictor(config) as torch_, Predictor(onnx) as onnx_:
        assert "onnx (onnxruntime" in onnx_.describe()
        for count in (1, 5, 8):
            a, b = torch_.predict(windows(count)), onnx_.predict(windows(count))
            for name in ("rhythm", "beat", "window", "screen"):
                np.testing.assert_allclose(getattr(b, name), getattr(a, name), atol=1e-5)


def test_a_step_as_onnx_says_what_torch_says(causal: ModelConfig) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    onnx = msgspec.structs.replace(causal, runtime="onnx")
    with pytest.raises(ConfigError, match="no package: ecgnat compile --onnx"):
        Predictor(onnx)
    assert make_onnx(causal).name == "step.onnx"
    for past in ("float32", "float16"):
        with Predictor(msgspec.structs.replace(onnx, past=past)) as a, Predictor(msgspec.structs.replace(causal, past=past)) as b:
            assert "token by token, onnx (onnxruntime" in a.describe()
            say_the_same(a, b)


@pytest.mark.timeout(900)  # a minute and a half of processor time, and other tests run beside it
@pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
def test_what_is_compiled_ahead_of_time_is_used_and_says_what_torch_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = EcgNatConfig(
        embed_dim=2,
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 1, 1),
        dilations=(1, 1, 1, 1),
        kernel_size=3,
        is_causal=True,
        scaling="fixed",
    )
    checkpoint = save_checkpoint(tmp_path / "least", EcgNat(model), ModelCard(model=model))
    config = ModelConfig(name=str(checkpoint), max_batch=4, window_s=4, device="cpu", mode="window")
    made = make_package(config)
    written = made.stat().st_mtime_ns
    assert make_package(config) == made and made.stat().st_mtime_ns == written, "what fits is not made again"
    start = (
        "import sys, torch; from pathlib import Path; from ecgnat_stream.model.package import load_package; "
        f"said = load_package(Path({str(made)!r}))(torch.zeros(2, 12, 400)); "
        "assert len(said) == 4 and 'torch._inductor.codecache' not in sys.modules, 'the compiler was imported'"
    )
    subprocess.run([sys.executable, "-c", start], check=True)
    samples = Conditioned(windows(3).samples[..., :400], 100)
    with Predictor(config) as packed, Predictor(msgspec.structs.replace(config, compile="off")) as eager:
        assert (packed.runtime.name, eager.runtime.name) == ("package", "eager")
        np.testing.assert_allclose(packed.predict(samples).rhythm, eager.predict(samples).rhythm, atol=1e-5)
    steps = msgspec.structs.replace(config, mode="auto")
    assert make_package(steps).name == "step-cpu.pt2"
    with Predictor(steps) as packed, Predictor(msgspec.structs.replace(steps, compile="off")) as eager:
        assert (packed.runtime.name, eager.runtime.name) == ("package", "eager")
        say_the_same(packed, eager)


def test_a_processor_has_one_name() -> None:
    assert package._processor() == package._processor() != ""
