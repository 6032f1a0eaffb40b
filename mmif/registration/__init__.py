"""Rigid registration of heads: CT, MR, SPECT and PET, from anywhere, with a verdict.

Volumes of one frame of reference are not searched but checked, whatever part of the body they show.
"""

from mmif.registration.given import check_transform, trust_headers
from mmif.registration.loop import LoopClosure, close_loop
from mmif.registration.one_frame import check_headers
from mmif.registration.result import Check, Registration
from mmif.registration.rigid import one_frame, register

__all__ = [
    "Check",
    "LoopClosure",
    "Registration",
    "check_headers",
    "check_transform",
    "close_loop",
    "one_frame",
    "register",
    "trust_headers",
]
