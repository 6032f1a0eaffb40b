"""What type checkers know of the options is what the options are."""

import ast
import dataclasses
import inspect
from pathlib import Path
from typing import get_type_hints

import mmif
from mmif.options import FuseOptions, OptionKeywords
from mmif.roles import VOLUME_ROLES
from mmif.study import FuseKeywords


def test_the_keywords_for_type_checkers_are_the_options() -> None:
    options = get_type_hints(FuseOptions)
    keywords = get_type_hints(OptionKeywords)
    assert list(keywords) == [name for name in options if name != "weights"]
    loose = {"preview", "transform"}  # a path may be given as text
    assert {n: keywords[n] for n in keywords.keys() - loose} == {
        n: options[n] for n in keywords.keys() - loose
    }


def test_fuse_takes_the_same_keywords_for_type_checkers_and_at_run_time() -> None:
    at_run_time = set(inspect.signature(mmif.fuse).parameters)
    assert set(get_type_hints(FuseKeywords)) == at_run_time - {"output", "pipeline", "progress"}
    assert at_run_time >= {*VOLUME_ROLES, *(f.name for f in dataclasses.fields(FuseOptions))}


def test_type_checkers_see_every_public_name() -> None:
    tree = ast.parse(Path(mmif.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == mmif._HOMES
