"""The program in the container: it loads the handler, prints a line, reads one event, and prints one answer."""

from __future__ import annotations

import importlib.util
import json
import os
import sys


def main() -> None:
    """Answer one event."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the handler prints is no answer
    found = importlib.util.spec_from_file_location("handler", sys.argv[1])
    assert found is not None
    assert found.loader is not None
    handler = importlib.util.module_from_spec(found)
    found.loader.exec_module(handler)
    print("ready", file=answers, flush=True)
    event = json.loads(sys.stdin.readline())
    try:
        answer = {"result": handler.handle(event)}
    except Exception as error:  # noqa: BLE001 - it is the function's, and its caller's to know
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
