"""Electrical waves of single beats as a moving dipole, and what electrodes and leads see of it.

A beat is a sum of Gaussian waves (McSharry et al., IEEE Trans Biomed Eng 50, 2003) per axis of the dipole (Sameni et al., EURASIP
J Adv Signal Process 2007, 043407). Axes as Frank's: x to the left, y to the feet, z to the back; mV. The amplitudes and widths
are our own, chosen so that the twelve leads look normal. Leads by Dower's matrix (Dower et al., J Electrocardiol 13, 1980).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["DIPOLE_TO_ELECTRODES", "ELECTRODES", "ELECTRODES_TO_LEADS", "Waves", "beat", "p_wave", "paced_beat", "ventricular"]

Waves = NDArray[np.float64]
"""Waves as rows (centre in s, sigma in s, x, y, z in mV)."""

ELECTRODES = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")

_DOWER = np.array(
    [
        [0.632, -0.235, 0.059],  # I
        [0.235, 1.066, -0.132],  # II
        [-0.515, 0.157, -0.917],  # V1
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],  # V6
    ]
)

# Potentials against Wilson's central terminal, whose own is 0: RA + LA + LL = 0.
DIPOLE_TO_ELECTRODES = np.vstack(
    [
        -(_DOWER[0] + _DOWER[1]) / 3,
        -(_DOWER[0] + _DOWER[1]) / 3 + _DOWER[0],
        -(_DOWER[0] + _DOWER[1]) / 3 + _DOWER[1],
        _DOWER[2:],
    ]
)
"""``(9, 3)``: electrode potentials of a unit dipole."""

_LIMBS = np.array([[-1, 1, 0], [-1, 0, 1], [0, -1, 1], [1, -0.5, -0.5], [-0.5, 1, -0.5], [-0.5, -0.5, 1]])
ELECTRODES_TO_LEADS = np.block([[_LIMBS, np.zeros((6, 6))], [np.full((6, 3), -1 / 3), np.eye(6)]])
"""``(12, 9)``: the definitions of Einthoven, Goldberger and Wilson."""

_P: Waves = np.array([[-0.022, 0.020, 0.03, 0.10, -0.065], [0.016, 0.022, 0.08, 0.085, 0.05]])
_QRS: Waves = np.array(
    [
        [-0.028, 0.0080, -0.13, -0.04, -0.22],  # septum: to the right and the front
        [0.000, 0.0115, 1.05, 0.92, 0.25],  # left ventricle
        [0.026, 0.0110, -0.26, -0.16, 0.72],  # base: to the back and up
    ]
)
_T: Waves = np.array([[-0.050, 0.045, 0.10, 0.08, -0.06], [0.0, 0.034, 0.22, 0.19, -0.13]])
_T_PEAK_S = 0.285  # after R, at 60 bpm


def p_wave(at: float, size: float = 1.0) -> Waves:
    """Return a P wave whose middle is at ``at``."""
    waves = _P.copy()
    waves[:, 0] += at
    waves[:, 2:] *= size
    return waves


def beat(at: float, rr: float, size: float = 1.0, width: float = 1.0) -> Waves:
    """Return QRS and T of a beat that came through the conduction system.

    Parameters
    ----------
    at
        Time of the R peak, s.
    rr
        RR interval, s; QT goes with its cube root (Fridericia 1920).
    size, width
        Factors on the amplitudes and on the duration of the QRS.
    """
    shorter = min(1.15, max(0.6, rr ** (1 / 3)))
    qrs, t = _QRS.copy(), _T.copy()
    qrs[:, :2] *= width
    t[:, :2] *= shorter
    t[:, 0] += _T_PEAK_S * shorter + 0.03 * (width - 1)
    waves = np.vstack([qrs, t])
    waves[:, 0] += at
    waves[:, 2:] *= size
    return waves


def ventricular(at: float, rr: float, axis: NDArray[np.float64], size: float = 1.0) -> Waves:
    """Return a beat from a ventricular focus: a wide QRS along ``axis`` (mV), and a T against it.

    The second half turns from the axis, as the activation creeps from cell to cell around the chamber.
    """
    shorter = min(1.1, max(0.65, rr ** (1 / 3)))
    turned = 0.55 * axis + 0.35 * np.cross(axis, [0.3, 0.4, 0.86])
    waves = np.empty((4, 5))
    waves[:, 0] = at + np.array([-0.028, 0.008, 0.046, 0.28 * shorter])
    waves[:, 1] = [0.016, 0.018, 0.021, 0.055 * shorter]
    waves[:, 2:] = [0.4 * axis, 1.05 * axis, 0.8 * turned, -0.37 * axis]
    waves[:, 2:] *= size
    return waves


_APEX = np.array([0.55, -1.05, 0.75])


def paced_beat(at: float, rr: float, fs: float, size: float = 1.0) -> Waves:
    """Return a beat paced at the apex of the right ventricle, with its stimulus on the nearest sample."""
    spike_at = round((at - 0.055) * fs) / fs
    spike = np.array([[spike_at, 0.3 / fs, -0.9, 1.3, 0.8]])
    return np.vstack([spike, ventricular(at, rr, _APEX, size)])
