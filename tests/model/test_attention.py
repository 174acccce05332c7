"""Neighborhood attention: the definition, its fast paths, and natten's own CPU path as the oracle."""

from __future__ import annotations

import warnings

import pytest
import torch

from ecgnat_stream.model.attention import choose_backend, fit_kernel, neighborhood_attention, neighbours

natten = pytest.importorskip("natten", reason="natten is the oracle")

CASES = [
    (length, kernel_size, dilation)
    for length in (26, 63, 64, 131, 256)
    for kernel_size, dilation in ((2, 1), (5, 1), (13, 1), (6, 2), (7, 3), (13, 2), (5, 5), (3, 8))
]


def heads(length: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query, key, value = torch.randn(3, 4, length, 2, 8, generator=generator).unbind(0)
    return query, key, value


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(("length", "kernel_size", "dilation"), CASES)
def test_every_back_end_agrees_with_natten(length: int, kernel_size: int, dilation: int, is_causal: bool) -> None:
    query, key, value = heads(length)
    reference = neighborhood_attention(query, key, value, kernel_size, dilation, is_causal, "reference")
    masked = neighborhood_attention(query, key, value, kernel_size, dilation, is_causal, "masked")
    banded = neighborhood_attention(query, key, value, kernel_size, dilation, is_causal, "banded")
    blocks = neighborhood_attention(*(x[:1] for x in (query, key, value)), kernel_size, dilation, is_causal, "blocks")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # natten's CPU path warns that it is not the fused one
        oracle = natten.na1d(query, key, value, kernel_size=kernel_size, dilation=dilation, is_causal=is_causal)
        flex = neighborhood_attention(query, key, value, kernel_size, dilation, is_causal, "flex")
    torch.testing.assert_close(reference, oracle, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(masked, reference, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(banded, reference, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(flex, reference, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(blocks, reference[:1], atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("head_dim", [4, 8, 12])
def test_natten_takes_any_head_dim(head_dim: int) -> None:
    query, key, value = torch.randn(3, 1, 40, 2, head_dim, generator=torch.Generator().manual_seed(0)).unbind(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fused = neighborhood_attention(query, key, value, 13, 2, backend="natten")
    torch.testing.assert_close(fused, neighborhood_attention(query, key, value, 13, 2, backend="reference"), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("length", [40, 430])
@pytest.mark.parametrize("is_causal", [False, True])
def test_gradients_agree(is_causal: bool, length: int) -> None:
    gradients = []
    for backend in ("reference", "masked", "banded"):
        leaves = [x.clone().requires_grad_() for x in heads(length)]
        neighborhood_attention(*leaves, 7, 3, is_causal, backend).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for reference, masked, banded in zip(*gradients, strict=True):
        torch.testing.assert_close(masked, reference, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(banded, reference, atol=1e-5, rtol=1e-4)


def test_neighbours_at_the_ends_are_shifted_not_lost() -> None:
    index, exists = neighbours(10, 5, 1, False)
    assert index[0].tolist() == [0, 1, 2, 3, 4]
    assert index[5].tolist() == [3, 4, 5, 6, 7]
    assert index[9].tolist() == [5, 6, 7, 8, 9]
    assert exists.all()


def test_dilated_neighbours_stay_in_their_residue_class() -> None:
    index, _ = neighbours(11, 3, 3, False)
    assert index[0].tolist() == [0, 3, 6]
    assert index[10].tolist() == [4, 7, 10]
    assert ((index - torch.arange(11)[:, None]) % 3 == 0).all()


def test_causal_neighbours_are_clipped_at_the_beginning() -> None:
    index, exists = neighbours(7, 3, 2, True)
    assert index[6].tolist() == [2, 4, 6]
    assert exists[1].tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("length", "wanted", "fitted"), [(32, (13, 2), (13, 2)), (25, (13, 2), (13, 1)), (12, (13, 2), (12, 1)), (1, (13, 8), (1, 1))]
)
def test_a_short_sequence_shrinks_dilation_then_kernel(length: int, wanted: tuple[int, int], fitted: tuple[int, int]) -> None:
    assert fit_kernel(length, *wanted) == fitted
    query, key, value = heads(length)
    short = neighborhood_attention(query, key, value, *wanted, backend="masked")
    torch.testing.assert_close(short, neighborhood_attention(query, key, value, *wanted, backend="reference"))


def test_a_short_causal_sequence_equals_the_beginning_of_a_long_one() -> None:
    query, key, value = heads(64)
    full = neighborhood_attention(query, key, value, 13, 4, is_causal=True)
    short = neighborhood_attention(query[:, :9], key[:, :9], value[:, :9], 13, 4, is_causal=True)
    torch.testing.assert_close(short, full[:, :9])


def test_a_mask_first_built_in_inference_mode_serves_training() -> None:
    query, key, value = heads(37)
    with torch.inference_mode():
        neighborhood_attention(query, key, value, 3)
    neighborhood_attention(query.requires_grad_(), key, value, 3).sum().backward()
    assert query.grad is not None


@pytest.mark.parametrize(
    ("kernel_size", "dilation", "backend", "said"),
    [(1, 1, None, "kernel_size=1"), (3, 0, None, "dilation=0"), (3, 1, "fast", "'fast'")],
)
def test_errors_print_the_values(kernel_size: int, dilation: int, backend: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        neighborhood_attention(*heads(8), kernel_size, dilation, backend=backend)  # type: ignore[arg-type]


def test_unequal_shapes_are_refused() -> None:
    query, key, value = heads(8)
    with pytest.raises(ValueError, match=r"\(4, 7, 2, 8\)"):
        neighborhood_attention(query, key[:, :7], value, 3)


def test_a_cpu_never_runs_natten() -> None:
    assert choose_backend(torch.device("cpu")) == "banded"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("is_causal", [False, True])
def test_natten_on_cuda_agrees(is_causal: bool) -> None:
    query, key, value = (x.cuda() for x in heads(256))
    fused = neighborhood_attention(query, key, value, 13, 8, is_causal, "natten")
    torch.testing.assert_close(
        fused, neighborhood_attention(query, key, value, 13, 8, is_causal, "reference"), atol=1e-3, rtol=1e-3
    )
