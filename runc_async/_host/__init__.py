"""What spans all containers below one root directory: their records, their life, their resource usage."""
