"""Processes of a runtime: launched, fed, drained, waited for and stopped."""
