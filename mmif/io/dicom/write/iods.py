"""The DICOM object that each kind of volume becomes: SOP class, values, and what it must carry.

The choices and their reasons are measured: grey fused volumes are MR Image Storage where an MR
came as DICOM, else Secondary Capture with an image plane; colour is Secondary Capture; registered
CT and PET keep their classes and their units.
"""

from dataclasses import dataclass

from pydicom import Dataset, Sequence
from pydicom.multival import MultiValue
from pydicom.uid import (
    CTImageStorage,
    MRImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
)

from mmif.io.dicom.write.derived import DerivedSeries
from mmif.io.dicom.write.header import copy_elements, keywords, sequence_items
from mmif.io.dicom.write.values import (
    Stack,
    StoredValues,
    arbitrary_values,
    colour_values,
    fused_values,
    hounsfield_values,
    scaled_values,
)
from mmif.io.source import Source

# PS3.3 C.8.3.1: what a viewer shows of the acquisition; the types 1 and 2 are filled in
MR_ACQUISITION = keywords(
    "ScanningSequence SequenceVariant ScanOptions MRAcquisitionType SequenceName RepetitionTime "
    "EchoTime InversionTime NumberOfAverages ImagingFrequency ImagedNucleus EchoNumbers "
    "MagneticFieldStrength EchoTrainLength FlipAngle ProtocolName"
)
MR_TERMS = {
    "ScanningSequence": ("SE", "IR", "GR", "EP", "RM"),
    "SequenceVariant": ("SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP", "NONE"),
    "ScanOptions": ("PER", "RG", "CG", "PPG", "FC", "PFF", "PFP", "SP", "FS"),
    "MRAcquisitionType": ("2D", "3D"),
}
CT_ACQUISITION = keywords(
    "KVP DataCollectionDiameter ReconstructionDiameter GantryDetectorTilt ExposureTime "
    "XRayTubeCurrent Exposure FilterType GeneratorPower ConvolutionKernel ProtocolName"
)
# PS3.3 C.8.9.1 to C.8.9.4
PET_ACQUISITION = keywords(
    "CountsSource SeriesType Units SUVType CorrectedImage DecayCorrection CollimatorType "
    "RandomsCorrectionMethod AttenuationCorrectionMethod ScatterCorrectionMethod "
    "ReconstructionMethod PatientOrientationCodeSequence PatientGantryRelationshipCodeSequence "
    "RadiopharmaceuticalInformationSequence FrameReferenceTime ActualFrameDuration DecayFactor "
    "AcquisitionDate AcquisitionTime"
)


@dataclass(frozen=True, eq=False)
class ObjectKind:
    """One kind of image object: its class, its values, and the attributes of its own modules."""

    sop_class_uid: str
    modality: str
    values: StoredValues
    elements: Dataset

    @property
    def multiframe(self) -> bool:
        """Whether all slices are the frames of one object."""
        return self.sop_class_uid == MultiFrameTrueColorSecondaryCaptureImageStorage


def object_kind(stack: Stack, recipe: DerivedSeries) -> ObjectKind:
    """The object that ``stack`` (slices, rows, columns[, 3]) becomes under ``recipe``."""
    if stack.ndim == 4:
        return _colour(stack, recipe)
    if recipe.kind == "fused":
        magnetic = _magnetic_resonance(recipe.sources)
        values = fused_values(stack)
        return _mr(values, magnetic) if magnetic else _grey_capture(values, "MR")
    return _registered_object(stack, recipe.others[0] if recipe.others else recipe.reference)


def _registered_object(stack: Stack, shown: Source) -> ObjectKind:
    """The object for the physical values of the source ``shown``."""
    if shown.units == "HU":
        return _ct(hounsfield_values(stack), shown)
    if shown.modality == "PT" and shown.headers and "Units" in shown.headers[0]:
        return _pet(scaled_values(stack, None), shown)
    if shown.modality == "MR" and _magnetic_resonance((shown,)):
        return _mr(arbitrary_values(stack), shown)
    return _grey_capture(scaled_values(stack, "US"), shown.modality or "OT")


def _magnetic_resonance(sources: tuple[Source, ...]) -> Source | None:
    """The first of ``sources`` that is an MR and came as DICOM."""
    return next((s for s in sources if s.modality == "MR" and s.headers), None)


def _mr(values: StoredValues, source: Source) -> ObjectKind:
    elements = _standard_terms(copy_elements(flat_mr(source.headers[0]), MR_ACQUISITION))
    elements.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    _fill(elements, ScanningSequence="RM", SequenceVariant="NONE")
    _fill(elements, ScanOptions="", MRAcquisitionType="", RepetitionTime=None, EchoTime=None)
    _fill(elements, EchoTrainLength=None)
    if "IR" in elements.ScanningSequence:
        _fill(elements, InversionTime=None)
    elif "InversionTime" in elements:
        del elements.InversionTime  # it may only stand with IR
    return ObjectKind(MRImageStorage, "MR", values, elements)


def _standard_terms(elements: Dataset) -> Dataset:
    """``elements`` without the vendors' own terms."""
    kept = Dataset()
    for element in elements:
        terms = MR_TERMS.get(element.keyword)
        values = element.value if isinstance(element.value, MultiValue) else [element.value]
        if terms:
            element.value = [value for value in values if value in terms]
        if not element.is_empty:
            kept[element.tag] = element
    return kept


def flat_mr(header: Dataset) -> Dataset:
    """The acquisition attributes of a classic or an enhanced MR header, all at its top level."""
    groups = sequence_items(header, "SharedFunctionalGroupsSequence")
    if not groups:
        return header
    flat = copy_elements(header, MR_ACQUISITION)
    places = {
        "MRTimingAndRelatedParametersSequence": ("RepetitionTime", "FlipAngle", "EchoTrainLength"),
        "MREchoSequence": ("EffectiveEchoTime",),
    }
    for sequence, names in places.items():
        for item in sequence_items(groups[0], sequence)[:1]:
            flat.update(copy_elements(item, names))
    if "EffectiveEchoTime" in flat:
        flat.EchoTime = flat.EffectiveEchoTime
    pulse = {"SPIN": "SE", "GRADIENT": "GR", "BOTH": ["SE", "GR"]}
    echo = str(copy_elements(header, ["EchoPulseSequence"]).get("EchoPulseSequence", ""))
    if echo in pulse:
        flat.ScanningSequence = pulse[echo]
    return flat


def _ct(values: StoredValues, source: Source) -> ObjectKind:
    elements = copy_elements(source.headers[0] if source.headers else Dataset(), CT_ACQUISITION)
    elements.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    _fill(elements, KVP=None, AcquisitionNumber=None)
    return ObjectKind(CTImageStorage, "CT", values, elements)


def _pet(values: StoredValues, source: Source) -> ObjectKind:
    elements = copy_elements(source.headers[0], PET_ACQUISITION)
    elements.ImageType = ["DERIVED", "PRIMARY"]
    if elements.get("DecayCorrection", "NONE") == "NONE":
        elements.pop("DecayFactor", None)
    else:
        _fill(elements, DecayFactor=1)
    if source.units == "SUVBW":
        elements.Units, elements.SUVType = "GML", "BW"
    elements.SeriesType = ["WHOLE BODY", "IMAGE"]
    _fill(elements, CountsSource="EMISSION", DecayCorrection="NONE", CorrectedImage="")
    _fill(elements, CollimatorType="NONE", AcquisitionDate="", AcquisitionTime="")
    _fill(elements, FrameReferenceTime=0, ActualFrameDuration=None)
    _fill(elements, RadiopharmaceuticalInformationSequence=Sequence())
    for dose in elements.RadiopharmaceuticalInformationSequence:
        _fill(dose, RadionuclideCodeSequence=Sequence())
    _fill(elements, PatientOrientationCodeSequence=Sequence())
    _fill(elements, PatientGantryRelationshipCodeSequence=Sequence())
    return ObjectKind(PositronEmissionTomographyImageStorage, "PT", values, elements)


def _grey_capture(values: StoredValues, modality: str) -> ObjectKind:
    return ObjectKind(SecondaryCaptureImageStorage, modality, values, _capture())


def _colour(stack: Stack, recipe: DerivedSeries) -> ObjectKind:
    several = recipe.encoding == "multiframe"
    sop_class = (
        MultiFrameTrueColorSecondaryCaptureImageStorage if several else SecondaryCaptureImageStorage
    )
    return ObjectKind(sop_class, "MR", colour_values(stack), _capture())


def _capture() -> Dataset:
    elements = Dataset()
    elements.ImageType = ["DERIVED", "SECONDARY"]
    elements.ConversionType = "WSD"
    return elements


def _fill(elements: Dataset, **values: object) -> None:
    """Sets those of ``values`` that ``elements`` has not."""
    for keyword, value in values.items():
        if keyword not in elements:
            setattr(elements, keyword, value)
