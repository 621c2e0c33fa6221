"""`Runc`: the client. One coroutine for each of runc's commands."""

from __future__ import annotations

from ._client.host import Host
from ._opening import Opening


class Runc(Host, Opening):
    r"""A client of one runtime with one root directory.

    It holds no open resource, can be shared by any number of tasks and event loops, and is cheap to make::

        runc = Runc(timeout=30)
        async with Bundle.busybox(["echo", "hello"]) as bundle:
            response = await runc.run("greeter", bundle)
        print(response.stdout, response.exit_code)  # b'hello\n' 0

    Args:
        command: The program: a name that is looked up in $PATH, or a path. A missing one raises `RuncNotFound` from the
            first call, and one that can't be executed `PermissionError` or another `OSError`.
        root: Where the runtime keeps its containers; its own default if None.
        debug: Log debug messages too.
        log: File that the runtime logs to. Without one its log goes into private memory, and tells the failures of the
            runtime from those of a container's process; with one that is told from stderr, which is less certain.
        log_format: Format of the `log`: "text" or "json". A private log is always JSON.
        systemd_cgroup: Let systemd make the cgroups.
        rootless: Ignore cgroup permission errors: True, False or "auto"; the runtime's default if None.
        extra_args: More global options, passed on as they are.
        env: Variables to add to the caller's environment, for the runtime. NOTIFY_SOCKET, LISTEN_FDS, LISTEN_PID and
            LISTEN_FDNAMES are taken out of it, unless they are given here.
        cwd: The runtime's working directory; relative paths in arguments are the caller's own all the same.
        timeout: Seconds for each request/response command, that is for all but `run`, `exec` and `restore`; None for no
            limit.
        pdeathsig: Signal that the runtime gets when the thread that started it dies, by util-linux' `setpriv`.
        process_group: Process group that the runtime is put into; 0 for one of its own.
        max_concurrency: How many request/response commands run at once in one event loop: eight for each CPU, if you
            don't say otherwise; None for no limit.
        runner: What starts the runtime; `ProcessRunner()` if None.

    Raises:
        ValueError: If an option can't be right.
        TypeError: If one is of a wrong type.
    """
