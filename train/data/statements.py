"""The words in which the databases state things about whole records, grouped as published benchmarks group them.

PTB-XL: ``scp_statements.csv`` of the database (Wagner 2020, doi 10.1038/s41597-020-0495-6). CPSC2018: the nine classes of the
challenge (Liu 2018), which the headers of the Challenge 2020 give as SNOMED CT or in words. Chapman-Shaoxing-Ningbo (CSN):
``ConditionNames_SNOMED-CT.csv`` of its release (Zheng 2022), and the four rhythm groups of Zheng 2020
(doi 10.1038/s41597-020-0386-x, table 3).
"""

from __future__ import annotations

__all__ = [
    "CPSC2018",
    "CSN",
    "CSN_OTHER",
    "GROUPS",
    "GROUP_WORDS",
    "PACED_WORDS",
    "SCP_DIAGNOSTIC",
    "SCP_FORM",
    "SCP_RHYTHM",
    "SCP_SUPER",
]

SCP_DIAGNOSTIC: dict[str, tuple[str, ...]] = {
    "NORM": ("NORM",),
    "IMI": ("IMI", "ILMI", "IPLMI", "IPMI", "INJIN", "INJIL"),
    "AMI": ("ASMI", "AMI", "ALMI", "INJAS", "INJAL", "INJLA"),
    "LMI": ("LMI",),
    "PMI": ("PMI",),
    "STTC": ("NDT", "DIG", "LNGQT", "ANEUR", "EL"),
    "NST_": ("NST_",),
    "ISC_": ("ISC_",),
    "ISCA": ("ISCAL", "ISCAS", "ISCLA", "ISCAN"),
    "ISCI": ("ISCIN", "ISCIL"),
    "LAFB/LPFB": ("LAFB", "LPFB"),
    "IRBBB": ("IRBBB",),
    "CRBBB": ("CRBBB",),
    "ILBBB": ("ILBBB",),
    "CLBBB": ("CLBBB",),
    "_AVB": ("1AVB", "2AVB", "3AVB"),
    "IVCD": ("IVCD",),
    "WPW": ("WPW",),
    "LVH": ("LVH",),
    "RVH": ("RVH",),
    "SEHYP": ("SEHYP",),
    "LAO/LAE": ("LAO/LAE",),
    "RAO/RAE": ("RAO/RAE",),
}
"""Diagnostic subclass of PTB-XL: its 44 statements."""

SCP_SUPER: dict[str, tuple[str, ...]] = {
    "NORM": ("NORM",),
    "MI": ("IMI", "AMI", "LMI", "PMI"),
    "STTC": ("STTC", "NST_", "ISC_", "ISCA", "ISCI"),
    "CD": ("LAFB/LPFB", "IRBBB", "CRBBB", "ILBBB", "CLBBB", "_AVB", "IVCD", "WPW"),
    "HYP": ("LVH", "RVH", "SEHYP", "LAO/LAE", "RAO/RAE"),
}
"""Diagnostic superclass of PTB-XL: its subclasses."""

SCP_FORM = (
    "ABQRS", "PVC", "STD_", "VCLVH", "QWAVE", "LOWT", "NT_", "PAC", "LPR", "INVT", "LVOLT", "HVOLT", "TAB_", "STE_", "PRC(S)",
    "NDT", "NST_", "DIG", "LNGQT",
)  # fmt: skip
"""Form statements of PTB-XL; the last four are diagnostic ones as well."""

SCP_RHYTHM = ("SR", "AFIB", "STACH", "SARRH", "SBRAD", "PACE", "SVARR", "BIGU", "AFLT", "SVTAC", "PSVT", "TRIGU")
"""Rhythm statements of PTB-XL."""

CPSC2018: dict[str, tuple[str, ...]] = {
    "NORM": ("426783006", "Normal"),
    "AFIB": ("164889003", "AF"),
    "1AVB": ("270492004", "I-AVB"),
    "CLBBB": ("164909002", "LBBB"),
    "CRBBB": ("59118001", "RBBB"),
    "PAC": ("284470004", "PAC"),
    "VPC": ("164884008", "PVC"),
    "STD_": ("429622005", "STD"),
    "STE_": ("164931005", "STE"),
}
"""Class of CPSC2018: its codes and words."""

CSN: dict[str, tuple[str, ...]] = {
    "SR": ("426783006",), "SA": ("427393009",), "ST": ("427084000",), "AFIB": ("164889003",), "AF": ("164890007",),
    "AT": ("713422000",), "SVT": ("426761007",), "APB": ("284470004",), "VPB": ("17338001",), "VB": ("11157007",),
    "VEB": ("75532003",), "JEB": ("426995002",), "WPW": ("74390002",), "1AVB": ("270492004",), "2AVB": ("195042002",),
    "2AVB1": ("54016002",), "AVB": ("233917008",), "LBBB": ("164909002",), "RBBB": ("59118001",), "LVH": ("164873001",),
    "RVH": ("89792004",), "MI": ("164865005",), "AQW": ("164917005",), "STDD": ("429622005",), "STE": ("164930006",),
    "STTC": ("428750005",), "STTU": ("164931005",), "TWC": ("164934002",), "TWO": ("59931005",), "UW": ("164937009",),
    "PWC": ("164912004",), "PRIE": ("164947007",), "QTIE": ("111975006",), "ERV": ("428417006",), "ALS": ("39732003",),
    "ARS": ("47665007",), "CR": ("251198002",), "CCR": ("251199005",),
}  # fmt: skip
"""The 38 classes of CSN that have been compared since MERL (Liu 2024, arXiv 2403.06659), by acronym. AF is flutter there."""

CSN_OTHER = (
    "426177001", "28189009", "27885002", "251173003", "164942001", "698252002", "251164006", "251146004", "251148003",
    "251147008", "446358003", "13640000", "195060002", "251180001", "195101003", "233896004", "233897008",
)  # fmt: skip
"""What the table of condition names has beside :data:`CSN`; sinus bradycardia, the most frequent statement, is among it."""

GROUPS = ("SB", "AFIB", "GSVT", "SR")
"""Rhythm groups of Zheng 2020: sinus bradycardia; fibrillation and flutter; tachycardias from above the ventricles, sinus
tachycardia included; sinus rhythm and sinus irregularity."""

GROUP_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "ptbxl": {
        "SB": ("SBRAD",),
        "AFIB": ("AFIB", "AFLT"),
        "GSVT": ("STACH", "SVTAC", "PSVT"),
        "SR": ("SR", "SARRH"),
    },
    "ludb": {
        "SB": ("Sinus bradycardia",),
        "AFIB": ("Atrial fibrillation", "Atrial flutter, typical"),
        "GSVT": ("Sinus tachycardia",),
        "SR": ("Sinus rhythm", "Sinus arrhythmia", "Irregular sinus rhythm"),
    },
    "cinc2020": {
        "SB": ("426177001",),
        "AFIB": ("164889003", "164890007", "AF"),
        "GSVT": ("427084000", "426761007", "713422000", "233896004", "233897008", "195101003"),
        "SR": ("426783006", "427393009", "Normal"),
    },
    "chapman": {
        "SB": ("SB",),
        "AFIB": ("AFIB", "AF"),
        "GSVT": ("ST", "SVT", "AT", "AVNRT", "AVRT", "SAAWR"),
        "SR": ("SR", "SA", "SI"),
    },
}
"""The words of each group in each database. Chapman-Ningbo records (JS) have the words of cinc2020 wherever they are."""

PACED_WORDS = ("PACE", "10370003")
"""Words for a paced rhythm, which is of no group; in ludb any statement that begins with "Pacemaker presence"."""
