"""Network namespaces with addresses of their own, connected by a bridge: machines of a cluster, on one machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Generator
from typing import NamedTuple


class Network(NamedTuple):
    """A bridge with namespaces.

    Attributes:
        address: The address of this process's own namespace on the bridge.
        hosts: The address of each namespace, by the namespace's path.
    """

    address: str
    hosts: dict[str, str]


def _ip(words: str) -> None:
    subprocess.run(["/sbin/ip", *words.split()], check=True, capture_output=True)


@contextlib.contextmanager
def network(number: int) -> Generator[Network]:
    """Make namespaces for the time of the block, which can all reach each other and this process.

    Raises:
        CalledProcessError: If this user can't make them.
    """
    own = os.getpid()
    bridge, subnet = f"rat{own}", f"10.{200 + own // 256 % 50}.{own % 256}"
    hosts: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        _ip(f"link add {bridge} type bridge")
        stack.callback(_ip, f"link delete {bridge}")
        _ip(f"address add {subnet}.1/24 dev {bridge}")
        _ip(f"link set {bridge} up")
        for host in range(number):
            name, address = f"{bridge}-{host}", f"{subnet}.{host + 2}"
            _ip(f"netns add {name}")
            # with its end of the pair
            stack.callback(_ip, f"netns delete {name}")
            _ip(f"link add {bridge}v{host} master {bridge} type veth peer name eth0 netns {name}")
            _ip(f"link set {bridge}v{host} up")
            for words in (f"address add {address}/24 dev eth0", "link set eth0 up", "link set lo up"):
                _ip(f"-n {name} {words}")
            hosts[f"/run/netns/{name}"] = address
        yield Network(f"{subnet}.1", hosts)
