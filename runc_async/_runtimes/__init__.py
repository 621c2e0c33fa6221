"""Facts about each runtime: one module for each, all of the shape defined in `dialect`."""
