"""A web service that runs scripts in containers, and shows live what they print and use: see README.md."""
