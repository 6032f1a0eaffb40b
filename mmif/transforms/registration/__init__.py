"""Rigid registration of heads: CT, MR, SPECT and PET, from anywhere, with a verdict."""

from mmif.transforms.registration.dictionary import RegisterRigidd
from mmif.transforms.registration.registering import given, register, trust_headers
from mmif.transforms.registration.result import Check, Registration

__all__ = ["Check", "RegisterRigidd", "Registration", "given", "register", "trust_headers"]
