"""A first container: created, started, looked at, killed, deleted. Needs root, runc, and a static busybox."""

import asyncio
import os
import tempfile

from runc_async import Bundle, PipedIO, Runc

PROGRAM = "trap 'echo I was told to end; exit 3' TERM; echo I am process $$ on $(hostname); while sleep 0.1; do :; done"


async def main(root: str) -> None:
    """Take a container through its life, and say what happens."""
    runc = Runc(root=root)
    version = await runc.version()
    print("runtime  ", version.runtime, version.version)
    async with Bundle.busybox(["sh", "-c", PROGRAM]) as bundle:
        print("bundle   ", bundle.path)
        # Created and started here; at the end stopped and deleted, whatever happens in between.
        async with runc.open_container(f"quickstart-{os.getpid()}", bundle, io=PipedIO()) as container:
            assert container.stdout is not None, "PipedIO gives all three streams"
            output = container.stdout.lines()
            print("it says  ", await anext(output))
            state = await container.state()
            print("state    ", state.status, "with pid", state.pid, "on this host, since", state.created)
            response = await container.exec(["sh", "-c", "echo $(id -un) sees $(ls -d /proc/[1-9]* | wc -l) processes"])
            print("exec     ", response.output.strip(), f"(exit code {response.exit_code})")
            print("processes", *await container.ps())
            stats = await container.stats()
            print("stats    ", f"{stats.memory.usage.usage} bytes of memory, {stats.cpu.usage.total} ns of CPU time")
            await container.kill("TERM")
            print("it says  ", await anext(output))
            print("ended    ", await container.wait())
    print("deleted  ", "containers left:", len(await runc.list()))


if os.geteuid() != 0:
    raise SystemExit("this example needs root; `python -m runc_async` tells what containers without root need")
with tempfile.TemporaryDirectory(prefix="quickstart-") as own:  # away from other containers
    asyncio.run(main(own))
