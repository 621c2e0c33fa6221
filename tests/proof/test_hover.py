"""What an editor shows for the methods of a client: pyright's language server, asked as an editor does."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import proof
import pytest

from runc_async import Container, Keeper, Pool, Runc

PROJECT = Path(__file__).parents[2]
SERVER = Path(sys.executable).with_name("pyright-langserver")
OWNERS: dict[type, str] = {Runc: "runc", Container: "container", Pool: "pool", Keeper: "keeper"}


def methods() -> list[tuple[str, str]]:
    """Return the public methods of the classes that a program holds, as a variable's name and the method's."""
    return [
        (variable, name)
        for owner, variable in OWNERS.items()
        for name, _ in inspect.getmembers(owner, callable)
        if not name.startswith("_") and not isinstance(inspect.getattr_static(owner, name), classmethod)
    ]


class Server:
    """A language server that is asked one thing at a time: https://microsoft.github.io/language-server-protocol/."""

    def __init__(self, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._number = 0

    def notify(self, method: str, parameters: dict[str, Any]) -> None:
        """Send a message without an answer."""
        self._send({"method": method, "params": parameters})

    def ask(self, method: str, parameters: dict[str, Any]) -> Any:
        """Send a request, and return the answer; requests of the server's own get an empty answer."""
        self._number += 1
        self._send({"id": self._number, "method": method, "params": parameters})
        while True:
            message = self._receive()
            if "method" in message:
                if "id" in message:
                    items = message.get("params", {}).get("items", [])
                    self._send({"id": message["id"], "result": [None] * len(items) or None})
            elif message.get("id") == self._number:
                return message["result"]

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._stdin.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        self._stdin.flush()

    def _receive(self) -> dict[str, Any]:
        length = 0
        while line := self._stdout.readline().strip():
            name, _, value = line.partition(b": ")
            length = int(value) if name.lower() == b"content-length" else length
        message: dict[str, Any] = json.loads(self._stdout.read(length))
        return message


def program(names: list[tuple[str, str]]) -> str:
    """Return a program with a line for each method."""
    imports = ", ".join(owner.__name__ for owner in OWNERS)
    arguments = ", ".join(f"{variable}: {owner.__name__}" for owner, variable in OWNERS.items())
    lines = "".join(f"    {variable}.{name}\n" for variable, name in names)
    return f"from runc_async import {imports}\n\ndef f({arguments}) -> None:\n{lines}"


@pytest.mark.proof  # the server takes ten seconds to start
@pytest.mark.timeout(300)
def test_hovering_shows_a_readable_signature(tmp_path: Path, tried: proof.Tried) -> None:
    """For each method it shows the parameters and the result by short names, and the docstring."""
    names = methods()
    page = tmp_path / "program.py"
    text = program(names)
    faults: list[str] = []
    with subprocess.Popen(
        [str(SERVER), "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=PROJECT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        server = Server(process.stdin, process.stdout)
        try:
            root = PROJECT.as_uri()
            folders = [{"uri": root, "name": "runc_async"}]
            ability = {"textDocument": {"hover": {"contentFormat": ["plaintext"]}}}
            server.ask(
                "initialize",
                {"processId": None, "rootUri": root, "workspaceFolders": folders, "capabilities": ability},
            )
            server.notify("initialized", {})
            document = {"uri": page.as_uri(), "languageId": "python", "version": 1, "text": text}
            server.notify("textDocument/didOpen", {"textDocument": document})
            for line, (variable, name) in enumerate(names, text.count("\n", 0, text.index("def f")) + 1):
                place = {"line": line, "character": 4 + len(variable) + 1}
                answer = server.ask("textDocument/hover", {"textDocument": {"uri": page.as_uri()}, "position": place})
                shown = "" if answer is None else str(answer["contents"]["value"])
                faults += [f"{variable}.{name}: {shown[:300]!r}"] if fault(shown, name) else []
        finally:
            process.kill()
    tried("methods hovered over in an editor", len(names))
    assert faults == []


def fault(shown: str, name: str) -> bool:
    """Whether what is shown has no signature, or one with modules or unknown types in it, or no docstring."""
    signature, _, text = shown.partition("\n\n") if "\n\n" in shown else shown.partition("\n---")
    return (
        f"{name}(" not in signature
        or "->" not in signature
        or bool(re.search(r"Unknown|runc_async\.\w+\.|_Default", signature))
        or not text.strip()
    )
