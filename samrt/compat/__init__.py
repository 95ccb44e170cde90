"""Interfaces of other packages over samrt."""
