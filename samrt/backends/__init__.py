"""What runs a bundle: one small protocol for a graph, `Engine`, and a session of a bundle's graphs."""
