"""The lines of `runc events`, read and decoded."""
