"""What is known of each runtime: one module for each, of the shape that `dialect` defines."""
