"""The families of commands of the client."""
