"""Everything about all containers below one root directory: records, changes, resource usage."""
