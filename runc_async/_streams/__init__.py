"""Pipes and terminals as streams."""
