"""The terminal of an `exec`: runc hands the terminal over, and a small program waits for the process in place of runc.

Why not `runc exec --tty`: an attached runc copies between two terminals, the container's and ours. runc turns off the
carriage return of the inner terminal, because ours adds it; so a program that turns off carriage returns still gets
them. And the first lines can have two, because the program may be running before runc changes the setting.

`--detach --console-socket` gives the terminal itself, as for a container. But then runc ends first, and the process
goes to process 1, which may reap the process before its exit code can be read (Linux before 6.15). So another process
starts runc and adopts the orphan: prctl(2), PR_SET_CHILD_SUBREAPER. The program ends like an attached runc: with runc's
own code if runc fails, else with the code of the process, or 128 + n for signal n. Signals are passed on. Starting the
program takes 15 ms, and about as much memory as runc.
"""

from __future__ import annotations

import os
import sys
import termios

from .._linux.fdsocket import FDSocket
from ..errors import RuncError, TerminalError
from ..runner import Invocation
from ..stdio import PtyIO

_NO_TERMINAL = "runc has sent no terminal: process.terminal isn't set; call set_terminal() of the bundle's spec"

# Signals are blocked and waited for, so that none is lost; the runtime begins with the mask that came from us. One that
# comes before the process is known is passed on afterwards, as runc does. Descriptors are closed once the runtime has
# them: otherwise a pipe of `preserve_fds` would have no end while this program runs. It ends by a signal if there is no
# process to wait for, because an exit code would be taken for that of the process.
_WAIT = """\
import ctypes, os, signal, sys
pid_file, *program = sys.argv[1:]
process, ended, waiting = 0, {}, []

def reap():
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            if not process or pid == process:
                ended[pid] = os.waitstatus_to_exitcode(status)
    except ChildProcessError:
        return

def end(code):
    if code < 0:
        if code != -signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.kill(os.getpid(), -code)
    os._exit(code)

try:
    if ctypes.CDLL(None).prctl(36, ctypes.c_ulong(1), 0, 0, 0):
        raise OSError("orphans can't be made to come here")
    signals = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    ignored = (signal.SIGPIPE, signal.SIGXFSZ)  # by Python itself
    runtime = os.posix_spawnp(program[0], program, os.environ, setsigmask=mask, setsigdef=ignored)
    for fd in set(os.listdir("/proc/self/fd")) - {"0", "1", "2", *pid_file.split("/")}:
        try:
            os.close(int(fd))
        except OSError:  # the one by which they were listed
            pass
    while process not in ended:
        number = signal.sigwait(signals)
        if number != signal.SIGCHLD:
            waiting += {number} - {signal.SIGWINCH, signal.SIGURG}
        else:
            reap()
            if not process and runtime in ended:
                if ended[runtime]:
                    end(ended[runtime])
                with open(pid_file) as file:
                    process = int(file.read())
                if process not in ended:
                    os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # raises if it went elsewhere
                    reap()
        while process and process not in ended and waiting:
            os.kill(process, waiting.pop(0))
    end(128 - ended[process] if ended[process] < 0 else ended[process])
except (OSError, ValueError) as error:
    os.write(2, f"waiting for the process of {program[0]}: {error}\\n".encode())
    end(-signal.SIGKILL)
"""


def hands_over(invocation: Invocation) -> bool:
    """Return whether runc is to hand over the terminal of the process."""
    # Not behind another command such as sudo or nsenter: the process may be out of reach there, or have another pid
    # here.
    place = invocation.detach_at
    return place is not None and invocation.argv[place - 1 : place] == (invocation.command,)


def waiting_for(pid_file: str) -> list[str]:
    """Return the words of a program to put in front of the runtime, which waits for the process in the pid file."""
    return [sys.executable, "-ISc", _WAIT, pid_file]


def receive_terminal(console: FDSocket, runc_pid: int, io: PtyIO) -> int:
    """Return the terminal sent by runc, non-blocking and of the size of `io`.

    Args:
        console: The socket for the terminal.
        runc_pid: The started process: runc, or a program that starts runc.
        io: The size. A program that started earlier saw another size, unless the process document has the size.

    Raises:
        TerminalError: If no terminal was sent, or the descriptor is no terminal.
        OSError: If no descriptor is left.
    """
    try:
        came = console.receive_nowait(runc_pid)
    except RuncError as exc:
        raise TerminalError((), None, message=str(exc)) from exc
    if not came:
        raise TerminalError((), None, message=_NO_TERMINAL)
    fd = console.detach()
    try:
        os.set_blocking(fd, False)
        termios.tcsetwinsize(fd, (io.rows, io.cols))
    except termios.error as exc:
        os.close(fd)
        raise TerminalError((), None, message="what runc has sent is no terminal") from exc
    return fd
