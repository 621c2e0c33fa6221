"""What a `Pool` is made of: one warm container, and the delay after failures."""
