"""Sources as the readers hand them over, and the tools that judge what mmif writes."""

import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from monai.data import MetaTensor
from pydicom import Dataset, FileMetaDataset, dcmread, dcmwrite
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    NuclearMedicineImageStorage,
    PositronEmissionTomographyImageStorage,
)

from mmif.geometry import rigid
from mmif.io.dicom.write.derived import DerivedSeries
from mmif.io.source import Source

sys.path.insert(0, str(Path(__file__).parent))  # makes ``dicom_corpus`` importable

STORAGE = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "NM": NuclearMedicineImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
}
LANDMARKS = ((3, 5, 1), (20, 7, 4), (11, 17, 7))
UNITS = {"CT": "HU", "MR": "", "NM": "counts", "PT": "BQML"}
SLICES, SPACING_MM = 9, 4.0
FIXED_TO_MOVING = rigid(
    [[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]], [12.0, -7.5, 3.25], [0, 0, 20]
)


def header(modality: str, index: int, **attributes: object) -> Dataset:
    """The header of one slice as it comes from a file; None removes an attribute."""
    number = 1 + list(STORAGE).index(modality)
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID = STORAGE[modality]
    ds.SOPInstanceUID = f"1.2.826.1.{number}.2.{index + 1}"
    ds.StudyInstanceUID = f"1.2.826.1.{number}"
    ds.SeriesInstanceUID = f"1.2.826.1.{number}.2"
    ds.FrameOfReferenceUID = f"1.2.826.1.{number}.3"
    ds.Modality = modality
    ds.PatientName, ds.PatientID, ds.PatientSex = "Muster^Maria", "4711", "F"
    ds.PatientBirthDate, ds.PatientAge, ds.PatientWeight = "19600214", "064Y", 61.5
    ds.StudyDate, ds.StudyTime, ds.StudyID = "20240305", "101112", "77"
    ds.AccessionNumber, ds.ReferringPhysicianName = "A-99", "Haus^Gregor"
    ds.StudyDescription, ds.SeriesDescription = "Schädel", "Kopf"
    ds.InstitutionName, ds.PatientPosition, ds.BodyPartExamined = "Klinik", "HFS", "HEAD"
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [-40, -50, SPACING_MM * index]
    ds.PixelSpacing, ds.SliceThickness = [1.5, 1.5], SPACING_MM
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that break their representation are wanted
        for keyword, value in (ACQUISITION[modality] | attributes).items():
            if value is None:
                ds.pop(keyword, None)
            else:
                setattr(ds, keyword, value)
    return from_file(ds)


ACQUISITION: Mapping[str, Mapping[str, object]] = {
    "CT": {"KVP": 120, "ConvolutionKernel": "H30s", "AcquisitionDate": "20240305"},
    "MR": {
        "ScanningSequence": ["GR", "IR"],
        "SequenceVariant": "SP",
        "EchoTime": 3.1,
        "RepetitionTime": 1900,
        "InversionTime": 900,
        "MagneticFieldStrength": 3,
        "ProtocolName": "t1_mprage",
    },
    "NM": {},
    "PT": {
        "Units": "BQML",
        "CountsSource": "EMISSION",
        "DecayCorrection": "START",
        "CorrectedImage": ["DECY", "ATTN"],
        "SeriesType": ["STATIC", "IMAGE"],
        "ActualFrameDuration": 600000,
        "FrameReferenceTime": 0,
        "AcquisitionDate": "20240305",
        "AcquisitionTime": "104500",
        "CollimatorType": "NONE",
    },
}
OPTIONAL = (
    "PatientName PatientID PatientSex PatientBirthDate PatientAge PatientWeight StudyDate "
    "StudyTime StudyID AccessionNumber ReferringPhysicianName StudyDescription SeriesDescription "
    "InstitutionName PatientPosition BodyPartExamined FrameOfReferenceUID"
)


def from_file(ds: Dataset) -> Dataset:
    """``ds`` written and read again: its text is bytes in its own character set."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcmwrite(buffer, ds, enforce_file_format=True)
        buffer.seek(0)
        return dcmread(buffer)


def dicom_source(modality: str, **attributes: object) -> Source:
    """A source of nine axial slices; ``attributes`` change every header."""
    headers = tuple(header(modality, index, **attributes) for index in range(SLICES))
    return Source(
        path=Path(f"{modality.lower()}_folder"),
        format="dicom",
        modality=modality,
        shape=(64, 64, SLICES),
        spacing_mm=(1.5, 1.5, SPACING_MM),
        units=UNITS[modality],
        series_uid=str(headers[0].SeriesInstanceUID),
        frame_of_reference_uid=headers[0].get("FrameOfReferenceUID"),
        patient_key="k",
        headers=headers,
    )


def anonymised_source(modality: str) -> Source:
    """A source without the attributes that anonymisers take away."""
    gone: dict[str, object] = dict.fromkeys((*OPTIONAL.split(), *ACQUISITION[modality]))
    if modality == "PT":
        gone["Units"] = "BQML"
    return dicom_source(modality, **gone)


class Sources:
    """Makers of sources and recipes, as one fixture."""

    dicom = staticmethod(dicom_source)
    anonymised = staticmethod(anonymised_source)


@pytest.fixture
def sources() -> Sources:
    return Sources()


@pytest.fixture
def nifti_source(tmp_path: Path) -> Source:
    """A source that came as NIfTI: a file, and no headers."""
    path = tmp_path / "t1.nii"
    path.write_bytes(b"its voxels")
    return Source(path, "nifti", "", (64, 64, SLICES), (1.5, 1.5, SPACING_MM))


@pytest.fixture
def recipe() -> Callable[..., DerivedSeries]:
    return _recipe


def _recipe(reference: Source, *others: Source, **changes: object) -> DerivedSeries:
    """A recipe with a fixed date and version."""
    base = DerivedSeries(
        reference=reference,
        others=others,
        fixed_to_moving_lps=FIXED_TO_MOVING if others else None,
        weights_sha256="ab" * 32,
        created=datetime(2025, 3, 1, 12, 30, 15),
        version="1.2.3",
    )
    return replace(base, **changes)


@pytest.fixture
def oblique() -> np.ndarray:
    return oblique_affine()


def oblique_affine() -> np.ndarray:
    """(4, 4) RAS: columns right to left, rows anterior to posterior, tilted about two axes."""
    a, b = np.radians(17.0), np.radians(-8.0)
    turn_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn_z @ turn_x @ np.diag([-1.25, -0.8, 4.0])
    affine[:3, 3] = (41.123456789, 37.7, -12.25)
    return affine


@pytest.fixture
def landmarks() -> tuple[tuple[int, int, int], ...]:
    """Voxels (i, j, k) that a reader must find at the same millimetre."""
    return LANDMARKS


@pytest.fixture
def volume() -> Callable[..., MetaTensor]:
    return landmark_volume


def landmark_volume(affine: np.ndarray, channels: int = 1, low: float = 0.0) -> MetaTensor:
    """(channels, 24, 20, 9): a ramp, and landmarks brighter than it, each of its own value."""
    voxels = np.broadcast_to(np.linspace(0.05, 0.3, 24)[:, None, None], (24, 20, SLICES)).copy()
    for number, place in enumerate(LANDMARKS):
        voxels[place] = 0.6 + 0.2 * number
    stack = np.repeat(voxels[None], channels, axis=0).astype(np.float32)
    return MetaTensor(stack + np.float32(low), affine=affine)


def tool(name: str) -> str:
    """The program ``name`` of the test extra: beside this Python, or on the path."""
    here = str(Path(sys.executable).parent)
    found = shutil.which(name, path=here) or shutil.which(name)
    assert found, f"{name} is not installed; it comes with mmif[test]"
    return found


@pytest.fixture
def faults() -> Callable[[Path], list[str]]:
    """What dciodvfy says against a file: its lines of errors and warnings."""

    def run(path: Path) -> list[str]:
        done = subprocess.run(
            [tool("dciodvfy"), str(path)], capture_output=True, text=True, check=False
        )
        assert done.stderr.strip(), "dciodvfy said nothing, not even the kind of object"
        return [line for line in done.stderr.splitlines() if line.startswith(("Error", "Warning"))]

    return run
