"""Asyncio client library for runc and other OCI runtimes."""

__version__ = "0.1.0"
