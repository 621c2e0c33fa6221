"""The programs that are measured, one process each, which all speak the protocol of `serve`."""
