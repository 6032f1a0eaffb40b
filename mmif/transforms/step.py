"""What the steps of a fusion have in common, so that a runner can tell of each of them."""

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

from monai.config import KeysCollection
from monai.transforms import MapTransform

from mmif.errors import ConfigError
from mmif.result import STUDY_KEY, StudyRecord

Data = Mapping[Hashable, Any]


class Step(MapTransform):  # type: ignore[misc]
    """A dictionary transform of the fusion: keys are roles, ``"study"`` holds the `StudyRecord`.

    Attributes:
        part: which part of the job its time counts to (``read``, ``register`` ...).
        parameters: what it was made with, as plain data.
    """

    part: ClassVar[str] = ""

    def __init__(self, keys: KeysCollection, **parameters: Any) -> None:
        super().__init__(keys)
        self.parameters: dict[str, Any] = parameters

    def figures(self, data: Data) -> dict[str, Any]:
        """What the step found, of the ``data`` that it handed on; plain numbers and words."""
        return {}

    def __repr__(self) -> str:
        words = [f"{list(map(str, self.keys))}"]
        words += [f"{name}={value!r}" for name, value in self.parameters.items()]
        return f"{type(self).__name__}({', '.join(words)})"


def study_of(data: Data) -> StudyRecord:
    """The record of the study in ``data``.

    Raises:
        ConfigError: no step before has made one.
    """
    record = data.get(STUDY_KEY)
    if not isinstance(record, StudyRecord):
        raise ConfigError("no study record in the data; expected RegisterToReferenced before")
    return record
