"""The fused volume, the registered ones and the transforms into files."""

from collections.abc import Hashable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor

import mmif
from mmif.errors import ConfigError, InputError
from mmif.io.atomic import commit_together, staging_folder
from mmif.io.dicom.deidentify import DUMMY_TIME, deidentify_volumes
from mmif.io.dicom.write.blending import Look, can_blend, write_blending
from mmif.io.dicom.write.derived import DerivedSeries, Kind
from mmif.io.dicom.write.registration import write_spatial_registration
from mmif.io.ownership import (
    SUMMARY,
    foreign_study,
    record_files,
    refuse_existing,
    summary_beside,
)
from mmif.io.source import Source
from mmif.io.transform_files import write_itk_transform
from mmif.io.writing import write_dicom_series, write_nifti
from mmif.options import FuseOptions, UnknownOptionError, unknown_line
from mmif.result import FUSED_KEY, STUDY_KEY, RegisteredSource, StudyRecord
from mmif.roles import ROLES, label
from mmif.transforms.colour import palette
from mmif.transforms.step import Data, Step, study_of

OVERLAY = "hot-iron"
"""The colours of a registered series over its reference, where its own are grey."""

WRITING = (
    *("format", "dicom_encoding", "transfer_syntax"),
    *("save_registered", "overwrite", "deidentify"),
)
"""The options that decide what is written, and how."""


class DeidentifyVolumesd(Step):
    """Volumes of which nothing but voxels and place is known any more (PS3.15 Basic Profile).

    It stands behind the registration, which a given DICOM transform finds by the true UIDs.

    Args:
        keys: roles.
    """

    part = "read"

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """``data`` with volumes whose sources hold no identity."""
        result = dict(data)
        result.update(deidentify_volumes({role: data[role] for role in self.keys}))
        return result


class SaveFusedd(Step):
    """The fused volume under ``output``, the registered ones with it, and the transforms.

    Outputs appear whole or not at all. ``output`` in ``.nii`` or ``.nii.gz`` is one file; any other
    is a folder with ``fused`` (DICOM) or ``fused.nii.gz``, ``registration.tfm``, and
    ``registration.dcm`` where both came as DICOM; with a registered series ``blending.dcm``, which
    lays it over a reference of DICOM slices; of three sources each file names its role.

    Args:
        keys: roles in the order of the task.
        output: where to write.
        recipe: what decides the voxels; UIDs follow from it.
        **options: of `mmif.options.FuseOptions`, those in ``WRITING``.

    Raises:
        OutputError: ``output`` exists or cannot be written.
        ConfigError: options that one file cannot keep.
        UnknownOptionError: another option.
    """

    part = "write"

    def __init__(
        self,
        keys: KeysCollection,
        output: str | Path,
        *,
        recipe: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        for name in options.keys() - set(WRITING):
            raise UnknownOptionError(unknown_line(name, WRITING))
        chosen = FuseOptions.of(options)
        self.output, self.recipe = Path(output), dict(recipe or {})
        self.format, self.encoding = chosen.format, chosen.dicom_encoding
        self.transfer_syntax = chosen.transfer_syntax
        self.save_registered, self.overwrite = chosen.save_registered, chosen.overwrite
        self.deidentified = chosen.deidentify
        written = {name: getattr(chosen, name) for name in WRITING}
        super().__init__(keys, output=str(output), **written)
        if self.single_file and self.format in ("dicom", "both"):
            raise ConfigError(f"{output}: one NIfTI file cannot hold format {self.format}")
        if self.single_file and self.save_registered:
            raise ConfigError(
                f"{output}: one NIfTI file cannot hold the registered volume too; expected a "
                "folder for --save-registered"
            )

    @property
    def single_file(self) -> bool:
        """Whether the output is one NIfTI file rather than a folder."""
        return self.output.name.endswith((".nii", ".nii.gz"))

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """``data``, once its outputs stand; what the writers warn of is in its record."""
        volume = self.output if self.single_file else None
        targets = [self.output] if volume is None else [volume, summary_beside(volume)]
        origins = (source.origin for source in study_of(data).sources.values())
        refuse_existing(
            *targets,
            overwrite=self.overwrite,
            inputs=[origin.path for origin in origins if origin is not None],
            foreign=foreign_study(volume),
        )
        with staging_folder(self.output) as folder:
            out = folder / "out"
            out.mkdir()
            warnings = self.write(data, out)
            record_files(out, mmif.__version__)
            made = [out] if volume is None else [out / volume.name, out / SUMMARY]
            commit_together(list(zip(made, targets, strict=True)))
        return {**data, STUDY_KEY: study_of(data).with_warnings(*warnings)}

    def write(self, data: Data, out: Path) -> tuple[str, ...]:
        """The outputs into the folder ``out``; what the writers warn of."""
        study = study_of(data)
        dicom, nifti = self.formats(study.sources[study.reference].origin)
        volumes = {"fused": data[FUSED_KEY]}
        if self.save_registered:
            volumes |= {name: source.values for name, source in _name_outputs(study, "registered")}
        warnings: list[str] = []
        for name, volume in volumes.items():
            if nifti:
                file = self.output.name if self.single_file else f"{name}.nii.gz"
                write_nifti(volume, out / file)
            if dicom:
                recipe = self._derive(study, name, volume)
                warnings += write_dicom_series(volume, out / name, recipe)
            if dicom and name != "fused" and self._blends(study.sources[study.reference].origin):
                blending = out / f"{name.replace('registered', 'blending')}.dcm"
                write_blending(blending, recipe, out / name, _look(study, name))
        warnings += self._write_transforms(study, out)
        return tuple(dict.fromkeys(warnings))

    def formats(self, reference: Source | None) -> tuple[bool, bool]:
        """Whether to write DICOM, and whether NIfTI."""
        if self.single_file:
            return False, True
        came_as = "dicom" if reference is not None and reference.format == "dicom" else "nifti"
        wanted = came_as if self.format == "auto" else self.format
        return wanted in ("dicom", "both"), wanted in ("nifti", "both")

    def _blends(self, reference: Source | None) -> bool:
        """Whether a registered series can be laid over the reference in the archive."""
        return self.save_registered and not self.deidentified and can_blend(reference)

    def names(self, origins: Mapping[str, Source | None], reference: str) -> list[str]:
        """What stands at the output in the end, of sources with these ``origins``."""
        if self.single_file:
            return [self.output.name]
        dicom, nifti = self.formats(origins[reference])
        moving = [role for role in origins if role != reference]
        endings = [f"_{role}" if len(moving) > 1 else "" for role in moving]
        blends = dicom and self._blends(origins[reference])
        volumes = ["fused", *(f"registered{end}" for end in endings if self.save_registered)]
        both_dicom = {
            end: _is_dicom(origins[role]) and _is_dicom(origins[reference])
            for role, end in zip(moving, endings, strict=True)
        }
        return [
            *(f"{name}/*.dcm" for name in volumes if dicom),
            *(f"{name}.nii.gz" for name in volumes if nifti),
            *(f"blending{end}.dcm" for end in endings if blends),
            *(f"registration{end}.tfm" for end in endings),
            *(f"registration{end}.dcm" for end in endings if both_dicom[end]),
        ]

    def _write_transforms(self, study: StudyRecord, out: Path) -> list[str]:
        """The registrations for ITK, and for DICOM where both sources came as DICOM."""
        warnings: list[str] = []
        if self.single_file:
            return warnings
        reference = study.sources[study.reference]
        for name, source in _name_outputs(study, "registration"):
            if source.registration is not None:
                matrix = source.registration.fixed_to_moving_lps
                write_itk_transform(out / f"{name}.tfm", matrix)
            if _is_dicom(source.origin) and _is_dicom(reference.origin):
                recipe = self._derive(study, f"registered_{source.role}", source.values)
                warnings += write_spatial_registration(out / f"{name}.dcm", recipe)
        return warnings

    def _derive(self, study: StudyRecord, name: str, volume: MetaTensor) -> DerivedSeries:
        """How the series ``name`` of this study came about, for the DICOM writers."""
        kind: Kind = "fused" if name == "fused" else "registered"
        moving = [s for role, s in study.sources.items() if role != study.reference]
        of = _moving_of(study, name)
        others = moving if kind == "fused" else [of]
        names = f"{' and '.join(label(s.role) for s in others)} to {label(study.reference)}"
        registrations = [s.registration for s in others if s.registration is not None]
        methods = "; ".join(dict.fromkeys(found.method for found in registrations))
        weights, sha256 = weights_used(study.fusion)
        return DerivedSeries(
            reference=_require_source(study.sources[study.reference]),
            others=tuple(_require_source(source) for source in others),
            # of three sources the first: references beside it go without a place on the grid
            fixed_to_moving_lps=registrations[0].fixed_to_moving_lps,
            alignment=registrations[0].alignment,
            of_heads=all(found.of_heads for found in registrations),
            kind=kind,
            description=f"mmif {kind} {names}" + " RGB" * (len(volume) == 3 and kind == "fused"),
            derivation=f"{names}: {methods}; trilinear resampling"
            + (f"; S3IMFusion, weights {weights}" if kind == "fused" else ""),
            parameters={
                **self.recipe,
                "transform": [r.fixed_to_moving_lps.round(6).tolist() for r in registrations],
                "deidentified": self.deidentified,
            },
            weights_sha256=sha256 if kind == "fused" else "",
            created=DUMMY_TIME if self.deidentified else datetime.now(),
            encoding=self.encoding,
            transfer_syntax=self.transfer_syntax,
        )


def weights_used(fusion: Mapping[str, Any]) -> tuple[str, str]:
    """Names and sha256 of the weights of each pass, the first pass first.

    >>> one, two = {"name": "ct-mri", "sha256": "ab"}, {"name": "spect-mri", "sha256": "cd"}
    >>> weights_used({"weights": two, "grey_weights": one})
    ('ct-mri and spect-mri', 'ab cd')
    """
    passes = [fusion[key] for key in ("grey_weights", "weights") if key in fusion]
    return " and ".join(one["name"] for one in passes), " ".join(one["sha256"] for one in passes)


def _name_outputs(study: StudyRecord, stem: str) -> Iterator[tuple[str, RegisteredSource]]:
    """The moving sources, each with the name of its output: ``stem``, of several with its role."""
    moving = [s for role, s in study.sources.items() if role != study.reference]
    for source in moving:
        yield (f"{stem}_{source.role}" if len(moving) > 1 else stem), source


def _moving_of(study: StudyRecord, name: str) -> RegisteredSource:
    """The moving source whose role the name of an output ends in; the only one, or the first."""
    moving = [s for role, s in study.sources.items() if role != study.reference]
    return next((s for s in moving if name.endswith(f"_{s.role}")), moving[0])


def _look(study: StudyRecord, name: str) -> Look:
    """How the registered series ``name`` lies over the reference: its windows, and its colours."""
    reference, moving = study.sources[study.reference].window, _moving_of(study, name)
    high = moving.window.high if moving.window.bone is None else moving.window.bone
    activity = ROLES[moving.role].kind == "activity"
    colours = str(study.fusion.get("colour_map") or OVERLAY) if activity else OVERLAY
    return Look(
        (reference.low, reference.high), (moving.window.low, high), palette(colours), colours
    )


def _is_dicom(origin: Source | None) -> bool:
    return origin is not None and origin.format == "dicom"


def _require_source(source: RegisteredSource) -> Source:
    if source.origin is None:
        raise InputError(
            f"the {label(source.role)} was made in memory; expected one read by mmif.load"
        )
    return source.origin
