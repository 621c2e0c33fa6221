"""A program that plays the agent: python -m agent, as root, in the directory that holds it."""

from __future__ import annotations

import asyncio
import os
import sys

from runc_async import Runc

from .sandbox import Sandbox, open_sandbox

TEST = """\
import primes

print("testing")
assert primes.below(12) == [2, 3, 5, 7, 11]
print("passed")
"""

PRIMES = """\
def below(limit):
    return [n for n in range(2, limit) if all(n % m for m in range(2, n))]
"""


async def play(sandbox: Sandbox) -> None:
    """Do what an agent does: write, test, compute, try what hangs, look around."""
    await sandbox.put("work/primes.py", PRIMES)
    await sandbox.put("work/test.py", TEST)
    ended = await sandbox.command(["python3", "-u", "work/test.py"], 30, lambda line: print("test:", line))
    print("test ended with", ended.code)

    print("cell:", (await sandbox.python.run("import sys; sys.path.append('work')\nimport primes", 30)) or "no output")
    print("cell:", (await sandbox.python.run("print(len(primes.below(1000)))", 30)).strip())

    before = set(await sandbox.container.ps())
    hangs = ["sh", "-c", "setsid sleep 1000 & echo working; sleep 1000; true"]
    ended = await sandbox.command(hangs, 1, lambda line: print("hangs:", line))
    python = set(await sandbox.container.ps())
    print("out of time:", ended.timed_out, "- processes left:", len(python - before))

    await sandbox.command(["sh", "-c", "ls work > listing"], 30, print)
    print("file:", "primes.py" in await sandbox.get("listing"))

    async with sandbox.terminal(rows=30, cols=100) as pty:
        await pty.send(b"stty size; exit\n")
        async for line in pty.lines():
            if line.rstrip().endswith("30 100"):  # behind the prompt, perhaps
                print("terminal: 30 rows, 100 columns")


async def main(root: str | None = None) -> None:
    """Make a sandbox, and play."""
    async with open_sandbox(Runc(root=root), f"agent-{os.getpid()}") as sandbox:
        await play(sandbox)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
