"""The options of `mmif.options` as click's, and back."""

import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from mmif.options import FuseOptions, OptionSpec, default_of, flag_of, specs

PATH = click.Path(path_type=Path)
Command = Callable[..., Any]


def add_options(names: Iterable[str]) -> Callable[[Command], Command]:
    """A decorator that gives a command the options ``names`` of `FuseOptions`."""
    known, hints = specs(FuseOptions), typing.get_type_hints(FuseOptions)
    options = [_click_option(name, known[name], hints[name]) for name in names]

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def chosen_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of the values that click found, those that are options of `FuseOptions`."""
    known = specs(FuseOptions)
    return {
        name: not value if spec.flag.startswith("--no-") else value
        for name, spec in known.items()
        if (value := values.get(name, default_of(FuseOptions, name))) is not None
    }


def _click_option(name: str, spec: OptionSpec, hint: Any) -> Callable[[Command], Command]:
    """One option; a flag that says no is off by default, whatever the Python name says."""
    flag, default = flag_of(name, spec), default_of(FuseOptions, name)
    if "/" in flag:
        return click.option(flag, name, default=None, help=spec.help)
    if isinstance(default, bool):
        return click.option(flag, name, is_flag=True, default=False, help=spec.help)
    if spec.by_role:
        return click.option(flag, name, multiple=True, metavar=spec.metavar, help=spec.help)
    return click.option(
        flag,
        name,
        type=_click_type(spec, hint),
        default=default,
        show_default=default is not None,
        metavar=spec.metavar,
        help=spec.help,
    )


def _click_type(spec: OptionSpec, hint: Any) -> Any:
    """What click shall make of the text of an option."""
    if spec.choices:
        return click.Choice(spec.choices)
    inner = [one for one in typing.get_args(hint) or (hint,) if one is not type(None)]
    if Path in inner:
        return PATH
    if float in inner:
        return click.FloatRange(min=spec.low)
    return str
