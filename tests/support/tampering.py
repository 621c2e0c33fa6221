"""A hostile process: directories and files change places with links that lead out, all the time."""

from __future__ import annotations

SCRIPT = """
import os, sys
base, outside, *root = sys.argv[1:]
for directory in root:
    os.chroot(directory)
os.makedirs(base + "/real", exist_ok=True)
os.chdir(base)
deep = "../" * 20 + outside.lstrip("/")
ways = (outside, deep, "/proc/self/root" + outside, "/proc/1/root" + outside, "real", "/proc/self/cwd")
def attempt(call, *args):
    try:
        call(*args)
    except OSError:
        pass
def write(path):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK)  # a FIFO would wait
    os.write(fd, b"inside")
    os.close(fd)
print("ready", flush=True)
turn = 0
while True:
    turn += 1
    way = ways[turn % len(ways)]
    attempt(os.unlink, "way")
    attempt(os.rename, "real", "way")
    attempt(write, "way/file")
    attempt(os.rename, "way", "real")
    attempt(os.symlink, way, "link")
    attempt(os.rename, "link", "way")
    attempt(os.symlink, way + "/file", "real/link")
    attempt(os.rename, "real/link", "real/file")
    if turn % 3 == 0:
        attempt(os.unlink, "real/file")
        attempt((os.mkfifo, write, os.mkdir)[turn % 9 // 3], "real/file")
        attempt(os.rmdir, "real/file")
    if turn % 50 == 0:
        attempt(os.mkdir, "real")
        for name in os.listdir("real"):
            attempt(os.unlink, "real/" + name)
"""
"""A program of Python; its arguments are the directory in which it works, and the one to which its links lead;
and, for a process that is in no container, what shall be its root."""

PATHS = ("way/file", "real/file", "way/../real/file", "link/file")
"""Paths below its directory that are never for long what they were."""
