"""The parts of a bundle."""
