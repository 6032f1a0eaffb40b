"""A generated set of small studies in mixed formats, some of them bad, each in a way of its own."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

Voxels = npt.NDArray[np.float64]
SPACING_MM = np.array([6.0, 6.0, 8.0])
CRASH = b"CRASH"
"""What stands at the end of the file that makes its reader's process die (`CrashingFuse`)."""

SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "NM": "1.2.840.10008.5.1.4.1.1.20",
}
GOOD = ("case", "bids", "dicom", "prefix", "spect", "mha", "zip", "mixed")
BAD = ("truncated", "no-pair", "two-patients", "no-overlap", "four-d", "crash")


def make_studies(root: Path, good: int = 34, shape: tuple[int, int, int] = (40, 40, 10)) -> None:
    """Write ``good`` good studies, in all formats in turn, and one bad one of each kind."""
    for number in range(good):
        kind = GOOD[number % len(GOOD)]
        MAKERS[kind](root, f"{kind}{number:02}", phantom(number, shape))
    for number, kind in enumerate(BAD):
        MAKERS[kind](root, f"bad-{kind}", phantom(100 + number, shape))


def phantom(seed: int, shape: tuple[int, int, int]) -> dict[str, Voxels]:
    """CT (HU), MRI and SPECT of one simulated head: skull, brain, ventricles, a lesion."""
    random = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    radius = np.sqrt((x / 0.75) ** 2 + (y / 0.9) ** 2 + (z / 1.1) ** 2)
    skull, brain = (radius > 0.88) & (radius < 1), radius <= 0.88
    at = random.uniform(-0.3, 0.3, 3)
    lesion = (x - at[0]) ** 2 + (y - at[1]) ** 2 + (z - at[2]) ** 2 < 0.04
    grey = np.sin(9 * x + seed) * np.cos(7 * y) * np.cos(5 * z)
    ct = np.where(skull, 1000.0, np.where(brain, 35 + 8 * grey, -1000))
    mri = np.where(brain, 500 + 150 * grey, np.where(skull, 60.0, 0.0))
    spect = np.where(brain, 200 + 40 * grey, 0.0)
    ct[lesion & brain] += 30
    mri[lesion & brain] += 250
    spect[lesion & brain] = 30
    noise = random.normal(0, 4, shape)
    return {"ct": np.round(ct + noise), "mri": np.abs(np.round(mri + noise)), "spect": spect}


# Formats


def write_nifti(path: Path, voxels: Voxels, offset_mm: float = 0.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])  # i to L, j to P
    affine[:3, 3] = [120 + offset_mm, 120, -40]
    nib.Nifti1Image(voxels.astype(np.int16), affine).to_filename(path)


def _mha(path: Path, voxels: Voxels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(voxels.astype(np.int16).transpose(2, 1, 0))
    image.SetSpacing(SPACING_MM.tolist())
    image.SetOrigin([-120.0, -120.0, -40.0])
    sitk.WriteImage(image, str(path))


def _header(modality: str, patient: str, study_uid: str) -> Dataset:
    header = Dataset()
    header.SOPClassUID = SOP_CLASSES[modality]
    header.PatientName, header.PatientID = "Simulated^Head", patient
    header.StudyInstanceUID, header.SeriesInstanceUID = study_uid, generate_uid()
    header.FrameOfReferenceUID = generate_uid(entropy_srcs=[patient])
    header.Modality, header.SeriesNumber = modality, 1
    header.StudyDate, header.StudyTime, header.StudyID = "20240101", "120000", "1"
    header.AccessionNumber = header.PatientBirthDate = header.PatientSex = ""
    header.ReferringPhysicianName = header.Manufacturer = ""
    header.PositionReferenceIndicator = ""
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, 0
    header.PixelSpacing = [float(SPACING_MM[1]), float(SPACING_MM[0])]
    header.SliceThickness = float(SPACING_MM[2])
    return header


def _save(path: Path, header: Dataset) -> None:
    header.SOPInstanceUID = generate_uid()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = header.SOPClassUID
    meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    FileDataset(str(path), header, file_meta=meta, preamble=b"\0" * 128).save_as(
        path, enforce_file_format=True
    )


def _series(folder: Path, modality: str, voxels: Voxels, patient: str, study_uid: str) -> None:
    """One file a slice, without an ending, in an order that says nothing."""
    header = _header(modality, patient, study_uid)
    header.Columns, header.Rows = voxels.shape[:2]
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    offset = -1024.0 if modality == "CT" else 0.0
    if modality == "CT":
        header.RescaleIntercept, header.RescaleSlope, header.RescaleType = offset, 1.0, "HU"
        header.KVP = 120
    else:
        header.ScanningSequence, header.SequenceVariant = "SE", "NONE"
        header.ScanOptions, header.MRAcquisitionType = "", "2D"
        header.EchoTime, header.RepetitionTime, header.EchoTrainLength = 10.0, 500.0, 1
    for k in range(voxels.shape[2]):
        header.InstanceNumber = voxels.shape[2] - k
        header.ImagePositionPatient = [-120.0, -120.0, -40.0 + float(SPACING_MM[2]) * k]
        header.PixelData = (voxels[:, :, k].T - offset).clip(0).astype("<u2").tobytes()
        _save(folder / f"{modality}{(7 * k) % 97:03}", header)


def _multi_frame(path: Path, voxels: Voxels, patient: str, study_uid: str) -> None:
    """A reconstructed SPECT as one NM file."""
    header = _header("NM", patient, study_uid)
    header.Columns, header.Rows, header.NumberOfFrames = voxels.shape
    header.ImageType = ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
    header.FrameIncrementPointer = 0x00540080
    header.SliceVector = list(range(1, voxels.shape[2] + 1))
    header.NumberOfSlices = voxels.shape[2]
    header.SpacingBetweenSlices = float(SPACING_MM[2])
    detector = Dataset()
    detector.ImagePositionPatient = [-120.0, -120.0, -40.0]
    detector.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.DetectorInformationSequence = [detector]
    header.InstanceNumber = 1
    header.PixelData = voxels.transpose(2, 1, 0).astype("<u2").tobytes()
    _save(path, header)


# Good studies


def _case(root: Path, name: str, head: dict[str, Voxels]) -> None:
    write_nifti(root / name / "ct.nii.gz", head["ct"])
    write_nifti(root / name / "mri.nii.gz", head["mri"])


def _bids(root: Path, name: str, head: dict[str, Voxels]) -> None:
    write_nifti(root / f"sub-{name}" / "anat" / f"sub-{name}_T1w.nii.gz", head["mri"])
    write_nifti(root / f"sub-{name}" / "anat" / f"sub-{name}_T2w.nii.gz", head["mri"] / 2)
    write_nifti(root / f"sub-{name}" / "ct" / f"sub-{name}_ct.nii.gz", head["ct"])


def _dicom(root: Path, name: str, head: dict[str, Voxels]) -> None:
    study = generate_uid()
    _series(root / name, "CT", head["ct"], name, study)
    _series(root / name, "MR", head["mri"], name, study)


def _prefix(root: Path, name: str, head: dict[str, Voxels]) -> None:
    write_nifti(root / "flat" / f"{name}_CT.nii.gz", head["ct"])
    write_nifti(root / "flat" / f"{name}_MR.nii", head["mri"])


def _spect(root: Path, name: str, head: dict[str, Voxels]) -> None:
    _multi_frame(root / name / "nuclear" / "IM0001", head["spect"], name, generate_uid())
    _series(root / name / "magnet", "MR", head["mri"], name, generate_uid())


def _mha_case(root: Path, name: str, head: dict[str, Voxels]) -> None:
    _mha(root / name / "ct.mha", head["ct"])
    write_nifti(root / name / "t1w.nii.gz", head["mri"])


def _zip(root: Path, name: str, head: dict[str, Voxels]) -> None:
    folder = root / name / "unpacked"
    _series(folder, "CT", head["ct"], name, generate_uid())
    with zipfile.ZipFile(root / name / "ct.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    shutil.rmtree(folder)
    write_nifti(root / name / "mri.nii.gz", head["mri"])


def _mixed(root: Path, name: str, head: dict[str, Voxels]) -> None:
    _series(root / name / "ct", "CT", head["ct"], name, generate_uid())
    write_nifti(root / name / "mri.nii.gz", head["mri"])


# Bad studies


def _truncated(root: Path, name: str, head: dict[str, Voxels]) -> None:
    _case(root, name, head)
    path = root / name / "ct.nii.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _no_pair(root: Path, name: str, head: dict[str, Voxels]) -> None:
    _series(root / name, "CT", head["ct"], name, generate_uid())


def _two_patients(root: Path, name: str, head: dict[str, Voxels]) -> None:
    _series(root / name, "CT", head["ct"], f"{name}-first", generate_uid())
    _series(root / name, "MR", head["mri"], f"{name}-second", generate_uid())


def _no_overlap(root: Path, name: str, head: dict[str, Voxels]) -> None:
    write_nifti(root / name / "ct.nii.gz", head["ct"], offset_mm=900.0)
    write_nifti(root / name / "mri.nii.gz", head["mri"])


def _four_d(root: Path, name: str, head: dict[str, Voxels]) -> None:
    write_nifti(root / name / "ct.nii.gz", head["ct"])
    write_nifti(root / name / "mri.nii.gz", np.stack([head["mri"]] * 3, axis=-1))


def _crash(root: Path, name: str, head: dict[str, Voxels]) -> None:
    write_nifti(root / name / "ct.nii", head["ct"])
    write_nifti(root / name / "mri.nii.gz", head["mri"])
    with (root / name / "ct.nii").open("ab") as file:
        file.write(CRASH)


MAKERS: dict[str, Callable[[Path, str, dict[str, Voxels]], None]] = {
    "case": _case,
    "bids": _bids,
    "dicom": _dicom,
    "prefix": _prefix,
    "spect": _spect,
    "mha": _mha_case,
    "zip": _zip,
    "mixed": _mixed,
    "truncated": _truncated,
    "no-pair": _no_pair,
    "two-patients": _two_patients,
    "no-overlap": _no_overlap,
    "four-d": _four_d,
    "crash": _crash,
}
