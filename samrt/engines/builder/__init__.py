"""From a bundle's graphs to engines in the bundle."""
