"""The networks that there are, by architecture: how each is configured, built, and which sizes it comes in."""

from __future__ import annotations

from typing import Any

import msgspec

from ecgnat_stream.model.beatnet import BEATNET_SIZES, BeatNet, BeatNetConfig
from ecgnat_stream.model.clear import CLEAR_SIZES, Clear, ClearConfig
from ecgnat_stream.model.ecgnat import SIZES, EcgNat, EcgNatConfig
from ecgnat_stream.model.ecgnat_hug import ECGNAT_HUG_SIZES, EcgNatHug, EcgNatHugConfig
from ecgnat_stream.model.network import Network
from ecgnat_stream.suggest import unknown

__all__ = ["ARCHITECTURES", "AnyConfig", "build", "configured"]

AnyConfig = EcgNatConfig | EcgNatHugConfig | BeatNetConfig | ClearConfig
"""The configuration of any network; in a checkpoint its key ``arch`` says of which."""

_NETWORKS: dict[type[Any], type[Any]] = {
    EcgNatConfig: EcgNat,
    EcgNatHugConfig: EcgNatHug,
    BeatNetConfig: BeatNet,
    ClearConfig: Clear,
}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "ecgnat": SIZES,
    "ecgnat-hug": ECGNAT_HUG_SIZES,
    "beatnet": BEATNET_SIZES,
    "clear": CLEAR_SIZES,
}
"""Architecture to its sizes."""


def build(config: AnyConfig) -> Network:
    """Return an untrained network of this configuration."""
    network: Network = _NETWORKS[type(config)](config)
    return network


def configured(arch: str, size: str, is_causal: bool = False, **changes: Any) -> AnyConfig:
    """Return the configuration of a size of an architecture.

    Parameters
    ----------
    is_causal
        The causal form, which only "ecgnat" has.
    changes
        Fields that differ from the size's, for example ``window_classes``.

    Raises
    ------
    ValueError
        For an unknown architecture or size, or a causal form that does not exist.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(unknown("architecture", arch, ARCHITECTURES))
    sizes = ARCHITECTURES[arch]
    if size not in sizes:
        raise ValueError(unknown(f"size of {arch}", size, sizes))
    if is_causal:
        if arch != "ecgnat":
            raise ValueError(f"{arch} has no causal form: leave out --causal or take ecgnat")
        changes = {"name": f"{size}-causal", "is_causal": True, "scaling": "fixed"} | changes
    config: AnyConfig = msgspec.structs.replace(sizes[size], **changes)
    return config
