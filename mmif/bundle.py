"""A task as a MONAI bundle: what `mmif.fusion_transforms` builds, written down with its weights.

MONAI's bundle specification: ``configs/metadata.json``, ``configs/inference.json``, ``models``,
``docs/README.md`` and ``LICENSE``.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from monai.transforms import Transform

import mmif
from mmif.config import Pipeline, shipped_path
from mmif.fusion import FusionTransforms, fusion_transforms
from mmif.io.atomic import staging_path
from mmif.io.ownership import record_files, refuse_existing
from mmif.roles import label, labels
from mmif.summary import NOTICE, plain
from mmif.transforms.fuse import FuseSlicesd
from mmif.transforms.save import SaveFusedd
from mmif.transforms.step import Step
from mmif.weights import CARD, MODEL, Weights, load_passes

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
"""Of ``metadata.json``: the newest that MONAI publishes (issue 7303 there)."""

METADATA = "configs/metadata.json"
RUN = (
    "python -m monai.bundle run --config_file configs/inference.json --bundle_root . {roles} "
    "--output OUT"
)


def write_bundle(pipeline: Pipeline, output: Path, overwrite: bool = False) -> Path:
    """The folder ``output`` with the bundle of ``pipeline``, whole or not at all.

    Args:
        pipeline: of volumes; its weights go along.
        output: the folder.
        overwrite: replace a bundle that stands there.

    Raises:
        OutputError: ``output`` exists or cannot be written.
        WeightsError: weights that cannot be used.
        ConfigError: a pipeline of 2-D images.
    """
    weights = load_passes(pipeline)
    refuse_existing(output, overwrite=overwrite, inputs=[one.path for one in weights])
    steps = fusion_transforms(pipeline, output="fused", weights=weights)
    texts = {
        METADATA: _json(metadata(pipeline, weights)),
        "configs/inference.json": _json(inference_config(pipeline, steps, weights)),
        "docs/README.md": readme(pipeline, weights),
    }
    with staging_path(output) as bundle:
        for one in weights:
            models = bundle / _models(one)
            models.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(one.path, models / MODEL)
            shutil.copyfile(one.path.parent / CARD, models / CARD)
        for name, text in texts.items():
            (bundle / name).parent.mkdir(exist_ok=True)
            (bundle / name).write_text(text, encoding="utf-8")
        shutil.copyfile(shipped_path("LICENSE"), bundle / "LICENSE")
        record_files(bundle, mmif.__version__)  # so that what was edited is never replaced
    return output


def inference_config(
    pipeline: Pipeline, steps: FusionTransforms, weights: tuple[Weights, ...]
) -> dict[str, Any]:
    """``inference.json``: the roles and the output at its top, then the steps by ``_target_``."""
    roles = pipeline.roles
    inputs = ", ".join(f"'{role}': @{role}" for role in roles)
    return {
        "bundle_root": ".",
        **dict.fromkeys(roles, ""),
        "output": "fused",
        "overwrite": False,
        "device": "auto",
        "network_def": {
            "_target_": "mmif.networks.s3imfusion.S3IMFusion",
            "config": {
                "_target_": "mmif.config.NetworkConfig",
                **asdict(weights[-1].network.config),
            },
        },
        "fusion": {
            "_target_": f"{FusionTransforms.__module__}.{FusionTransforms.__name__}",
            "transforms": [step_config(step, weights) for step in steps.transforms],
        },
        "run": [f"$@fusion({{{inputs}}})"],
    }


def step_config(step: Transform, weights: tuple[Weights, ...] = ()) -> dict[str, Any]:
    """One step as MONAI's configuration has it; files and the device are keys at its top."""
    if not isinstance(step, Step):
        raise TypeError(f"{type(step).__name__}: expected a Step, whose parameters are known")
    config = {
        "_target_": f"{type(step).__module__}.{type(step).__name__}",
        "keys": list(step.keys),
        **plain(step.parameters),
    }
    if "device" in config:
        config["device"] = "@device"
    if isinstance(step, FuseSlicesd):
        config["weights"] = [f"$@bundle_root + '/{_models(w)}/{MODEL}'" for w in weights]
    if isinstance(step, SaveFusedd):
        config |= {"output": "@output", "overwrite": "@overwrite", "recipe": plain(step.recipe)}
    return config


def metadata(pipeline: Pipeline, weights: tuple[Weights, ...]) -> dict[str, Any]:
    """``metadata.json``: versions, and what goes through the network of the last pass."""
    card = weights[-1].card
    *anatomies, other = map(label, pipeline.roles)
    anatomy = " and ".join(anatomies) + (", fused" if len(anatomies) > 1 else "")
    slices = {
        "type": "image",
        "format": "magnitude",
        "spatial_shape": ["*", "*"],
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
    }
    return {
        "schema": SCHEMA,
        "version": mmif.__version__,
        "changelog": {mmif.__version__: f"written by mmif {mmif.__version__}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": {"mmif": mmif.__version__, "fire": _installed_version("fire")},
        "name": f"mmif {pipeline.task}",
        "task": f"Fusion of {labels(pipeline.roles)}",
        "description": f"Load, register, resample, fuse and save {labels(pipeline.roles)} of one "
        "patient.",
        "authors": "the mmif authors",
        "copyright": f"Apache-2.0; data: {_terms(card)}",
        "intended_use": NOTICE,
        "network_data_format": {
            "inputs": {
                "image": {
                    **slices,
                    "modality": f"{anatomy} and {other}",
                    "num_channels": 2,
                    "channel_def": {"0": anatomy, "1": other},
                }
            },
            "outputs": {
                "pred": {**slices, "num_channels": 1, "channel_def": {"0": "fused brightness"}}
            },
        },
    }


def readme(pipeline: Pipeline, weights: tuple[Weights, ...]) -> str:
    """``docs/README.md``: how it is run, what it makes, its limits."""
    run = RUN.format(roles=" ".join(f"--{role} {role.upper()}" for role in pipeline.roles))
    limits = dict.fromkeys(line for one in weights for line in one.card.get("limits", ()))
    files = "\n".join(f"- `{_models(one)}/{MODEL}`, sha256 `{one.sha256}`" for one in weights)
    return f"""# {pipeline.task}

Fuses {labels(pipeline.roles)} of one patient into one volume on the grid of the
{label(pipeline.reference)}. {NOTICE}

    pip install mmif=={mmif.__version__} fire
    {run}

{", ".join(f"`{role.upper()}`" for role in pipeline.roles)} are DICOM folders, NIfTI files or what
else mmif reads; `OUT` is a folder, or a name in `.nii.gz` for one file. `--overwrite True` replaces
an output, `--device cpu` chooses. Every step of `configs/inference.json` is a MONAI transform whose
parameters may be changed there or on the command line (`--fusion#transforms#4#size 384`).

A registration that fails, two patients or a broken file are refused: the last line of the traceback
says what was found and what was expected.

## Weights

{files}

They are verified by the sha256 in their `card.json`, which has data, recipe, figures and limits.

## Limits

{chr(10).join(f"- {line}" for line in limits)}

## Licences

Code and weights: Apache-2.0 (`LICENSE`). Data: {_terms(weights[-1].card)}
"""


def _models(weights: Weights) -> str:
    """The folder of one pass's weights in the bundle."""
    return f"models/{weights.name}"


def _terms(card: Mapping[str, Any]) -> str:
    return str(card.get("licence", {}).get("data", "not said"))


def _installed_version(package: str) -> str:
    """Its version here, or the lowest that was tried."""
    try:
        return version(package)
    except ModuleNotFoundError:
        return "0.5.0"


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2) + "\n"
