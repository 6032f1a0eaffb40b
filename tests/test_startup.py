"""A process of mmif's own starts without what it never uses, and takes nothing from others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmif.startup import environment, isolated_command


def run(script: str) -> list[str]:
    command = [sys.executable, "-c", script]
    # What an earlier test in this process has set is not the user's.
    threads = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    clean = {name: value for name, value in os.environ.items() if name not in threads}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=clean)
    return done.stdout.split()


LEAN = """
import sys
from mmif.startup import UNUSED, start_quickly
start_quickly()
import mmif.study, monai
print(*sorted(UNUSED & set(sys.modules)))
"""


def test_a_command_imports_nothing_of_monai_that_it_never_uses() -> None:
    assert run(LEAN) == []


def test_what_was_left_out_can_be_imported_afterwards_and_monai_is_its_own_again() -> None:
    more = """
import scipy.signal
print(scipy.signal.__name__, "mmif" in type(monai.__spec__.loader).__module__, len(sys.meta_path))
"""
    name, ours, finders = run(LEAN + more)
    assert (name, ours) == ("scipy.signal", "False")
    assert run("import sys; print(len(sys.meta_path))") == [finders]


def test_no_garbage_is_sought_while_monai_is_imported_and_as_ever_behind_it() -> None:
    script = """
import gc
looks = []
gc.callbacks.append(lambda phase, info: looks.append(phase))
from mmif.startup import start_quickly
start_quickly()
looks.clear()
import monai
print(len(looks), gc.isenabled(), gc.get_freeze_count() > 100_000)
"""
    assert run(script) == ["0", "True", "True"]


def test_monai_imports_what_is_asked_for_and_no_more_until_it_is() -> None:
    more = """
import pkgutil
before = "monai.losses" in sys.modules
import monai.losses, monai.utils.module
mine = monai.utils.module.walk_packages is pkgutil.walk_packages
print(before, len(list(pkgutil.walk_packages(monai.__path__))) > 10, mine)
"""
    assert run(LEAN + more) == ["False", "True", "True"]


def test_its_threads_sleep_while_they_wait_unless_the_user_says_otherwise() -> None:
    script = "import os; from mmif.startup import start_quickly; start_quickly()\n"
    script += "print(os.environ.get('GOMP_SPINCOUNT'))"
    assert run(script) == ["1000"]
    assert run(f"import os; os.environ['GOMP_SPINCOUNT'] = '7'; {script}") == ["7"]
    assert run(f"import os; os.environ['OMP_WAIT_POLICY'] = 'ACTIVE'; {script}") == ["None"]


def test_numpys_products_take_one_thread_unless_the_user_says_otherwise() -> None:
    script = "import os; from mmif.startup import start_quickly; start_quickly()\n"
    script += "print(os.environ['OPENBLAS_NUM_THREADS'])"
    clean = "import os; os.environ.pop('OPENBLAS_NUM_THREADS', None); "
    assert run(clean + script) == ["1"]
    assert run(f"import os; os.environ['OPENBLAS_NUM_THREADS'] = '2'; {script}") == ["2"]


END = """
import atexit, sys
from mmif.startup import end_quickly
class Freed:
    def __del__(self): print("freed")
kept = Freed()
atexit.register(print, "called")
"""


def test_the_end_calls_what_asked_for_it_and_frees_nothing() -> None:
    script = END + "print('said', end=' '); end_quickly(3)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("said called\n", "", 3)


@pytest.mark.parametrize(
    ("before", "code"),
    [("threading.Timer(0.2, print, ['late']).start()", 0), ("sys.stdout = None", 0)],
)
def test_a_process_whose_end_is_not_simple_ends_as_any(before: str, code: int) -> None:
    script = f"{END}import threading; {before}; end_quickly(3); sys.exit({code})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == code
    assert "Timer" not in before or "late" in done.stdout


def test_an_output_that_cannot_be_written_is_no_success() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "mmif", "weights", "list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode != 0


def test_the_library_leaves_the_process_as_it_is() -> None:
    script = "import gc, sys; before = gc.get_threshold(); import mmif.study, mmif.report\n"
    script += "print(gc.get_threshold() == before, 'mmif.startup' in sys.modules)"
    assert run(script) == ["True", "False"]


@pytest.mark.parametrize(
    "words", [["--help"], ["fuse", "--help"], ["info", "sample_data/ct"], ["weights", "list"]]
)
def test_a_command_that_needs_no_torch_imports_none(words: list[str]) -> None:
    script = f"""
import sys
from mmif.cli import main
try:
    main({words!r})
except SystemExit as end:
    sys.stdout = sys.__stdout__
    assert not end.code, end.code
print("loaded:", *sorted({{"torch", "monai"}} & set(sys.modules)))
"""
    assert run(script)[-1] == "loaded:"


def test_a_child_imports_nothing_from_the_working_folder_or_by_pythons_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules that are called like the standard library's and like packages lie in both."""
    code = f"open({str(tmp_path / 'ran')!r}, 'a').write(__name__)"
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        for name in ("json", "numpy", "queue", "SimpleITK", "sitecustomize", "usercustomize"):
            (tmp_path / place / f"{name}.py").write_text(code)
    (tmp_path / "start.py").write_text(code)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "there"))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "start.py"))
    monkeypatch.syspath_prepend(str(tmp_path / "there"))
    call = "import json, queue, numpy, SimpleITK, mmif, sys; print(json.__file__, sys.argv[1])"
    done = subprocess.run(
        isolated_command(call, "word"),
        env=environment(threads=1),
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split()[1] == "word"
    assert not (tmp_path / "ran").exists()


def test_a_child_of_a_dask_worker_manages_its_memory_as_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    assert "MALLOC_TRIM_THRESHOLD_" not in environment(threads=1)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_training_takes_the_memory_of_the_step_before_again() -> None:
    count = (
        "import resource, torch; from mmif.startup import keep_memory\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(2): [torch.ones(6 << 20) for _ in range(12)]\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "faults(); first = faults(); keep_memory(); faults(); print(first, faults())"
    )
    done = subprocess.run([sys.executable, "-c", count], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < before / 10
