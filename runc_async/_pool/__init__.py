"""The parts of a `Pool`: one warm container, and the delay after failures."""
