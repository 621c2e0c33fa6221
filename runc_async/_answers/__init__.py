"""Output of runtimes: logs, error messages, and results decoded to structs."""
