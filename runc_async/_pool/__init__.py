"""The parts of a `Pool`: a warm container, and the delay after failures."""
