"""Descriptors that come with a message."""

from __future__ import annotations

import os

import pytest

from runc_async import KeeperError
from runc_async.keeper.channel import Passed


def test_descriptors_beside_a_message_are_closed() -> None:
    """Only what is taken out stays open."""
    fds = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(3)]
    with Passed(fds) as passed:
        taken = passed.take(1)
        for index in (1, 3):
            with pytest.raises(KeeperError, match=f"descriptor {index} is missing"):
                passed.get(index)
    assert [os.path.exists(f"/proc/self/fd/{fd}") for fd in fds] == [False, True, False]
    os.close(taken)
