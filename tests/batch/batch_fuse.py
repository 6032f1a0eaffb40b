"""The real work of a batch, with a file that makes its reader's process die."""

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batch_studies import CRASH

from mmif.batch.fuse_job import FuseWork
from mmif.batch.jobs import Job
from mmif.batch.run_job import Step


class CrashingFuse(FuseWork):
    """The real work; a file that ends in CRASH reads address 0 in native code."""

    def __call__(self, job: Job, output: Path, step: Step) -> Mapping[str, Any]:
        step("read", 0.0)
        for source in job.inputs.values():
            if any(path.read_bytes().endswith(CRASH) for path in source.paths()):
                ctypes.string_at(0)
        return super().__call__(job, output, step)
