"""What a series is where it is no image of anatomy or activity: phase, maps, projections, scouts.

ImageType says it, where scanners fill it in; else the description, which a person typed.
"""

import re
from collections.abc import Sequence

MAPS = frozenset(
    {"ADC", "FA", "TRACEW", "MAP", "B0", "B1", "T1_MAP", "T2_MAP", "T2_STAR_MAP", "MTT", "CBF"}
    | {"CBV", "RCBF", "RCBV", "TTP", "TMAX", "PERFUSION", "SUBTRACTION", "SUB", "MIP", "MINIP"}
    | {"PROJECTION", "SCOUT", "ATTENUATION", "SCATTER", "TENSOR", "EXPONENTIAL"}
    | {"ADC MAP", "FIELD MAP", "B0 MAP", "B1 MAP", "T1 MAP", "T2 MAP", "FA MAP", "R2 MAP"}
    | {"R2_MAP", "R2_STAR_MAP", "PROJECTION IMAGE", "VELOCITY MAP", "MIP_THIN", "MAP_ASL"}
)
"""Values of ImageType after the second that scanners and workstations give to maps."""

ATTENUATION, SCATTER = "an attenuation map", "a scatter window or map"
NO_ACTIVITY = frozenset({ATTENUATION, SCATTER})
"""What lies beside activity and looks like it: never taken for it, original or derived."""

_SYLLABLES = frozenset({"MAP", "MIP", "SCOUT", "SURVIEW", "SURVEY", "TOPOGRAM"})
"""Parts of such values: FIELD_MAP, REF_SURVIEW."""

_NAMES = (
    (
        "a diffusion map",
        r"[ed]?adc|apparent diff\w*|fa(?! *=? *\d)|fractional an\w*|trace ?w?|tensor",
    ),
    ("a field map", r"b[01] ?map\w*|field ?map\w*"),
    ("a parameter map", r"[tr][12] ?(star|\*|rho)? ?map\w*|qsm|suscept\w* map"),
    ("a perfusion map", r"r?cb[vf]|mtt|ttp|t ?max|k ?trans"),
    ("a projection", r"m(in)?ip"),
    ("a subtraction", r"sub|subtract\w*"),
    ("a scout", r"scout|survey|surview|locali[sz]er|loc|3 ?plane( loc\w*)?|topogram|scano\w*"),
    (
        ATTENUATION,
        r"(mu|u|(ct)?ac|att|atten|attn|attenuation|trans|transmission) ?-?maps?"
        r"|attenuation(?!.*corr)|transmission",
    ),
    (SCATTER, r"[a-z]*scatter (map|window)|[a-z]*scatter(?!.*corr)"),
    ("a summary or report", r"exam summary|dose (report|info|summary)|(patient )?protocol|summary"),
)
"""What words of a SeriesDescription say, as scanners and dcm2niix's users name such series."""

_PATTERNS = tuple(
    (name, re.compile(rf"(?<![a-z0-9])({words})(?![a-z0-9])")) for name, words in _NAMES
)
# A CT that a gamma camera keeps as NM (GE's Hawkeye) is there for the correction alone
_NM_CT = re.compile(
    r"(hawkeye|low ?dose|ld)? ?ct ?(for )?(ac)?|ct (for )?ac\W.*|ac ?ct|ct attenuation correction"
)
_MR_PHASE = re.compile(r"(?<![a-z0-9])pha(se)?(?![a-z0-9])(?! ?(contrast|over|enc))")
# GE: IRNC and NC are reconstructed with no correction, IRAC, IRACSC, IRACSCRR and ACM with it
_UNCORRECTED = re.compile(
    r"(?<![a-z0-9])(nac|non?[ -]?ac|uncorr\w*|irnc\w*|nc|non-?corrected"
    r"|(no|non|not|without)[ -](attenuation|attn|corrected)\w*)(?![a-z0-9])"
)
_CORRECTED = re.compile(
    r"(?<![a-z0-9])(ac|irac\w*|ctac|acm|attn|attenuation.*corr\w*"
    r"|(?<!scatter )(?<!motion )(?<!decay )corrected)(?![a-z0-9])"
)
# GE: Tc99m_SC; Siemens: "Tc99m NMG LowerScatter"; Philips: "Scatter"
_SCATTER_WINDOW = re.compile(r"scat|(?<![a-z0-9])sc\d?(?![a-z0-9])")


def map_of(kinds: Sequence[str]) -> str:
    """The value of ImageType (from the third on) that says a series is a map; "" for none."""
    for kind in sorted(kinds):
        if kind in MAPS or not _SYLLABLES.isdisjoint(re.split(r"[ _]", kind)):
            return kind
    return ""


def named_auxiliary(description: str, modality: str) -> str:
    """What a SeriesDescription says a series is, where it is no anatomy or activity; else "".

    >>> named_auxiliary("ep2d_diff_ADC", "MR")
    'a diffusion map'
    >>> named_auxiliary("t1_mprage_sag", "MR")
    ''
    """
    words = description.lower().replace("_", " ")
    for name, pattern in _PATTERNS:
        if pattern.search(words):
            return name
    if modality == "NM" and _NM_CT.fullmatch(words.strip()):
        return ATTENUATION
    if modality == "MR" and _MR_PHASE.search(words):
        return "a phase image"
    return ""


def is_attenuation_corrected(
    corrected: Sequence[str], method: str, description: str
) -> bool | None:
    """Whether activity is corrected for attenuation; None where nothing says it, or both.

    Args:
        corrected: CorrectedImage. Cameras write what was done to the projections into that of a
            reconstruction, so that without ATTN a description that says AC leaves it open.
        method: AttenuationCorrectionMethod.
        description: SeriesDescription, asked where the attributes are absent.
    """
    words = description.lower().replace("_", " ")
    said = True if _CORRECTED.search(words) else None
    said = False if _UNCORRECTED.search(words) else said
    if corrected:
        return None if said is not None and said != ("ATTN" in corrected) else "ATTN" in corrected
    if method:
        return method.strip().upper() not in {"NONE", "NO", "N"}
    return said


def is_scatter_window(names: Sequence[str]) -> bool:
    """Whether all energy windows of an image (EnergyWindowName) are those of scatter.

    >>> is_scatter_window(["Tc99m_SC"]), is_scatter_window(["Tc99m_EM"]), is_scatter_window([])
    (True, False, False)
    """
    words = [name.lower().replace("_", " ") for name in names]
    return bool(words) and all(_SCATTER_WINDOW.search(name) for name in words)
