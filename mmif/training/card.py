"""The card of trained weights: data, recipe, figures, limits, licences."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mmif.config import Pipeline
from mmif.training.validation import Validation
from mmif.weights import find_weights, read_card

DATA_TERMS = {
    "harvard": "Whole Brain Atlas (AANLIB), Harvard Medical School; no image is redistributed",
    "roadscene": "RoadScene (FusionDN, AAAI 2020), after FLIR; no image is redistributed",
}
UNKNOWN_TERMS = "not stated: data of whoever trained"
COMMON_LIMITS = (
    "Research use only; not a medical device.",
    "Both sources must be registered; what one source hides under the other is not recovered.",
)
DATA_LIMITS = {
    "ct-mri": (
        "Trained on slices of 8 bits that were made to look like a scanner's volumes (windows,"
        " contrasts, noise, blur, findings); no volume was seen.",
        "What the CT shows in the brain is fused as it departs from the parenchyma: a shift of the"
        " whole brain's density is not shown.",
        "Axial slices of adult heads; other body parts were never seen.",
    ),
    "spect-mri": (
        "Fuses the luminance Y of a pseudo-colour picture; Y of a palette is not the count.",
        "Axial slices of adult heads; other body parts were never seen.",
    ),
    "pet-mri": (
        "Fuses the luminance Y of a pseudo-colour picture; Y of a palette is not the uptake.",
        "All training slices are sweeps through one and the same head, to all appearance: a split"
        " by case is not a split by patient here.",
    ),
    "spect-ct": ("Trained on activity over CT slices of other patients, drawn together.",),
    "pet-ct": ("Trained on activity over CT slices of other patients, drawn together.",),
    "ct-mri-spect": ("Trained on activity over the CT and MRI of other patients, drawn together.",),
    "ct-mri-pet": ("Trained on activity over the CT and MRI of other patients, drawn together.",),
    "ir-vis": ("Road scenes of one vehicle camera pair; other scenes were never seen.",),
}


@dataclass(frozen=True)
class Origin:
    """Where a training began, which it cannot know of itself; a resumed one keeps it.

    Attributes:
        command: the command line as it was given.
        commit: of the code; ``unknown`` outside a checkout.
        started_from: name and sha256 of the weights it began with, if any.
    """

    command: str
    commit: str = "unknown"
    started_from: str | None = None


def weights_card(
    pipeline: Pipeline,
    origin: Origin,
    cases: Mapping[str, Mapping[str, int]],
    validation: Validation,
    device: torch.device,
    seconds: float,
) -> dict[str, Any]:
    """The card, but for the sha256, which is added where the file is written.

    Args:
        cases: side to case to number of pairs.
        seconds: of training so far, validations not counted.
    """
    recipe = pipeline.training
    known = recipe.data if set(cases["validation"]) == set(recipe.validation_cases) else None
    terms = DATA_TERMS[known] if known else UNKNOWN_TERMS
    grey = pipeline.grey_weights
    first = {} if grey is None else {"grey_weights": read_card(find_weights(grey))["sha256"]}
    limits = DATA_LIMITS[pipeline.task] if known else ()
    return {
        "task": pipeline.task,
        "architecture": "S3IMFusion",
        "data": {"cases": cases, "terms": terms},
        "recipe": {"loss": asdict(pipeline.loss), "training": asdict(recipe)},
        "command": origin.command,
        "commit": origin.commit,
        "started_from": origin.started_from,
        **first,
        "seconds": round(seconds, 1),
        "device": device_name(device),
        "torch": torch.__version__,
        "validation": {
            "pairs": validation.pairs,
            "ours": validation.means,
            "baselines": validation.baselines,
            "mean_rank_among_baselines": validation.mean_rank,
        },
        "limits": [*limits, *COMMON_LIMITS],
        "licence": {"code_and_weights": "Apache-2.0", "data": terms},
    }


def device_name(device: torch.device) -> str:
    """The processor's name, with its instructions and the threads used on a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"CPU {_processor()}, {instructions}, {torch.get_num_threads()} thread(s)"


def _processor() -> str:
    """The processor's name as Linux gives it, elsewhere its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
