"""Kernel features: processes, pidfds, cgroups, inotify, files in memory, sockets."""
