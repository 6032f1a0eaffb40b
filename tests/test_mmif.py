"""The public face: what is promised can be imported, and nothing heavy comes along."""

import subprocess
import sys

import mmif


def test_every_public_name_can_be_imported() -> None:
    for name in mmif.__all__:
        assert getattr(mmif, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(mmif, "no_such_name")


def test_help_imports_no_command_and_nothing_heavy() -> None:
    code = (
        "import sys; from mmif.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'monai', 'SimpleITK', 'pydicom', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "fuse" in done.stdout
