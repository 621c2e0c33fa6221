"""A sandbox for an agent's tools: one container that lives, and many commands in it."""
