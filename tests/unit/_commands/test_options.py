"""The typed dictionaries of options have the options of the methods that they are passed on to."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
import pytest

from runc_async import Runc
from runc_async._commands.argv import Creation
from runc_async._commands.options import DEFAULT, CreateOptions, ExecOptions
from runc_async.keeper.protocol import Options
from runc_async.keeper.sending import options_of, to_create_options

ITS_OWN = {"self", "container_id", "bundle", "io", "console_socket", "timeout"}


def test_those_of_create() -> None:
    """A container's handle, the words of the command and the keeper's message have all options of `Runc.create`."""
    options = set(inspect.signature(Runc.create).parameters) - ITS_OWN
    assert set(CreateOptions.__annotations__) == options
    words = {field.name for field in msgspec.structs.fields(Creation)}
    assert words - {"own_pid_file", "console_socket"} == options - {"strict"}
    message = {field.name for field in msgspec.structs.fields(Options)}
    assert message - {"timeout"} == options - {"strict"}


def test_those_of_exec() -> None:
    """`Container.exec` has all options of `Runc.exec`."""
    assert set(ExecOptions.__annotations__) == set(inspect.signature(Runc.exec).parameters) - {
        "self",
        "container_id",
        "process",
    }


@pytest.mark.parametrize("name", sorted(set(CreateOptions.__annotations__) - {"strict"}))
def test_a_keeper_gets_each_option(name: str) -> None:
    """An option of `create` arrives as it was given."""
    values: dict[str, Any] = {
        "preserve_fds": (7,),
        "pid_file": "/run/pid",
        "pidfd_socket": "/run/socket",
        "extra_args": ("--frob",),
    }
    given = {name: values.get(name, True)}
    options, timeout = to_create_options(options_of(given, DEFAULT, lambda fd: fd), lambda index: index)  # type: ignore[arg-type]
    assert {option: value for option, value in options.items() if value} == given
    assert timeout is DEFAULT
