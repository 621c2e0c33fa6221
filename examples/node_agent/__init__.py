"""A node agent: it watches the containers of a host, shows them, restarts what crashes, and serves Prometheus."""
