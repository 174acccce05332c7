"""The ways to train that a study compares."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ARMS", "Arm"]


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train.

    Parameters
    ----------
    arch
        See :func:`train.fit.baselines.build`.
    init
        Which of ``--init`` to begin with, or "" for random weights.
    contrast
        Weight of the contrastive loss.
    probe
        The encoder is frozen, see :mod:`train.compare.probe`.
    head, attention
        Of ``clear``.
    gap_s
        Of networks of heartbeats: stretches without beats are read from this length on; 0 for the size's own.
    beat_errors
        Of networks of heartbeats: part of the windows whose R peaks get a detector's errors in training.
    """

    arch: str = "ecgnat"
    init: str = ""
    contrast: float = 0.0
    probe: bool = False
    head: str = ""
    attention: str = ""
    gap_s: float = 0.0
    beat_errors: float = 0.0

    @property
    def trained(self) -> str:
        """What a step's cost depends on, whatever the step begins with; a few more tiles are not counted."""
        return " ".join(filter(None, (self.arch, self.head, self.attention, "contrast" if self.contrast > 0 else "")))


ARMS = {
    "ecgnat": Arm(init="ecgnat", contrast=0.5),
    "ecgnat-hug": Arm("ecgnat-hug", "ecgnat"),
    "beatnet": Arm("beatnet"),
    "clear": Arm("clear", "clear", head="linear"),
    "clear-hug": Arm("clear", "clear", head="hug"),
    "xresnet1d101": Arm("xresnet1d101"),
    "random-init probe": Arm(probe=True),
    "clear-hug-gelu": Arm("clear", "clear", head="hug-gelu"),
    "clear-hug dense": Arm("clear", "clear-dense", head="hug", attention="dense"),
    "clear-hug dense pretraining": Arm("clear", "clear-dense", head="hug"),
    "clear-hug scratch": Arm("clear", head="hug"),
    "beatnet gaps": Arm("beatnet", gap_s=0.32),
    "clear-hug gaps": Arm("clear", "clear", head="hug", gap_s=0.32),
    "beatnet errors": Arm("beatnet", beat_errors=0.5),
    "clear-hug errors": Arm("clear", "clear", head="hug", beat_errors=0.5),
    "ecgnat probe": Arm(init="ecgnat", probe=True),
    "clear probe": Arm("clear", "clear", probe=True, head="linear"),
    "clear-hug probe": Arm("clear", "clear", probe=True, head="hug"),
    "clear-hug dense probe": Arm("clear", "clear-dense", probe=True, head="hug", attention="dense"),
    "scratch": Arm(),
    "no-contrastive": Arm(init="ecgnat"),
    "no-contrastive beats": Arm(init="ecgnat-beats"),
    "ecgnat-beats probe": Arm(init="ecgnat-beats", probe=True),
    "no-pretraining": Arm(contrast=0.5),
    "full-attention": Arm("full"),
}
"""The three papers' recipes and the baselines, then what lies between. "clear-hug dense" has dense attention in the masked-beat
pretraining and after it, "clear-hug dense pretraining" in the pretraining alone; "gaps" reads stretches without beats from 0.32 s
on; "errors" gives the R peaks of half of the training windows a detector's errors; where "beats" is said of ECG-NAT its
pretraining masked whole heartbeats."""
