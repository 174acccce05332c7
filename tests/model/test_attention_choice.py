"""The attention of each layer is the one that was measured to be the fastest."""

from __future__ import annotations

import pytest
import torch

from ecgnat_stream.model import attention_choice
from ecgnat_stream.model.attention import Backend
from ecgnat_stream.model.attention_choice import LayerShape, candidates, choose_attention, layer_shapes, measure_backends
from ecgnat_stream.model.ecgnat import EcgNat, NatLayer, size

CPU = torch.device("cpu")


def test_layers_are_measured_as_they_are_used() -> None:
    network = EcgNat(size("nano")).eval()
    shapes = [shape for _, shape in layer_shapes(network, network.prepare(torch.zeros(2, 12, 1000)))]
    assert [shape.length for shape in shapes] == [256, 256, 128, 128, 64, 64, 64, 64, 32, 32]
    assert shapes[0] == LayerShape(2, 256, 2, 12, 13, 1, False)
    assert shapes[1].dilation == 8


def test_each_layer_gets_the_fastest_and_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network = EcgNat(size("nano")).eval()
    x = network.prepare(torch.randn(2, 12, 1000))
    with torch.inference_mode():
        before = network(x).rhythm

    def measured(shape: LayerShape, *_: object) -> dict[Backend, float]:
        return {"masked": 1.0, "reference": 2.0} if shape.length > 100 else {"masked": 2.0, "reference": 1.0}

    monkeypatch.setattr(attention_choice, "measure_backends", measured)
    chosen = choose_attention(network, x)
    layers = [module for module in network.modules() if isinstance(module, NatLayer)]
    assert [layer.backend for layer in layers] == ["masked"] * 4 + ["reference"] * 6
    assert set(chosen.values()) == {"masked", "reference"}
    with torch.inference_mode():
        torch.testing.assert_close(network(x).rhythm, before, atol=1e-5, rtol=0)


def test_what_does_not_work_is_left_out() -> None:
    shape = LayerShape(1, 20, 2, 4, 5, 2, False)
    measured = measure_backends(shape, CPU, torch.float32, ("masked", "no such thing", "banded"), calls=1)  # type: ignore[arg-type]
    assert set(measured) == {"masked", "banded"}
    assert all(seconds > 0 for seconds in measured.values())


def test_a_cpu_has_no_use_for_kernels_of_a_gpu() -> None:
    assert candidates(CPU) == ("banded", "masked")
    assert "masked" in candidates(torch.device("cuda"))
