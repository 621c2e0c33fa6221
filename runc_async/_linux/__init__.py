"""What the kernel gives: processes, pidfds, cgroups, inotify, files in memory, sockets."""
