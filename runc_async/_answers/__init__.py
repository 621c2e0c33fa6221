"""What runtimes answer: logs, wordings, failures, and answers decoded into structs."""
