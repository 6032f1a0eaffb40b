"""Rigid registration of heads: CT, MR, SPECT and PET, from anywhere, with a verdict."""

from mmif.registration.result import Check, Registration
from mmif.registration.rigid import check_transform, register, trust_headers

__all__ = ["Check", "Registration", "check_transform", "register", "trust_headers"]
