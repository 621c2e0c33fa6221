"""The families of the client's commands, over one object that runs calls."""
