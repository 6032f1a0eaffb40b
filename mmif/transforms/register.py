"""Registration as a MONAI dictionary transform."""

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import MapTransform

from mmif.config import RegistrationConfig
from mmif.registration.rigid import register


class RegisterRigidd(MapTransform):  # type: ignore[misc]
    """Registers ``moving_key`` to ``fixed_key``; the volumes stay as they are.

    The `Registration` stands in the dictionary under ``registration_key``, for
    `ResampleToGridd` or anything else that resamples.
    """

    def __init__(
        self,
        fixed_key: Hashable,
        moving_key: Hashable,
        registration_key: Hashable = "registration",
        config: RegistrationConfig | None = None,
        device: str = "cpu",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__([fixed_key, moving_key], allow_missing_keys)
        self.fixed_key, self.moving_key = fixed_key, moving_key
        self.registration_key = registration_key
        self.config, self.device = config, device

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """``data`` with the registration added."""
        found = register(
            data[self.fixed_key], data[self.moving_key], self.config, device=self.device
        )
        return {**data, self.registration_key: found}
