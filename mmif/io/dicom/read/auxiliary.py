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
    ("an attenuation or scatter map", r"(mu|u) ?-?map|attenuation( map)?|scatter( map)?"),
    ("a summary or report", r"exam summary|dose (report|info|summary)|(patient )?protocol|summary"),
)
"""What words of a SeriesDescription say, as scanners and dcm2niix's users name such series."""

_PATTERNS = tuple(
    (name, re.compile(rf"(?<![a-z0-9])({words})(?![a-z0-9])")) for name, words in _NAMES
)
_MR_PHASE = re.compile(r"(?<![a-z0-9])pha(se)?(?![a-z0-9])(?! ?(contrast|over|enc))")
_UNCORRECTED = re.compile(r"(?<![a-z0-9])(nac|non?[ -]?ac|uncorr\w*|irnc)(?![a-z0-9])")
_CORRECTED = re.compile(r"(?<![a-z0-9])(ac|irac|ctac|attn|corrected)(?![a-z0-9])")


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
    if modality == "MR" and _MR_PHASE.search(words):
        return "a phase image"
    return ""


def is_attenuation_corrected(
    corrected: Sequence[str], method: str, description: str
) -> bool | None:
    """Whether activity is corrected for attenuation; None where nothing says it.

    Args:
        corrected: CorrectedImage.
        method: AttenuationCorrectionMethod.
        description: SeriesDescription, asked where the attributes are absent.
    """
    if corrected:
        return "ATTN" in corrected
    if method:
        return method.strip().upper() not in {"NONE", "NO", "N"}
    words = description.lower().replace("_", " ")
    if _UNCORRECTED.search(words):
        return False
    return True if _CORRECTED.search(words) else None
