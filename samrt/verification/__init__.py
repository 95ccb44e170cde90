"""Comparing what will run with a reference, and how far it may be from it."""
