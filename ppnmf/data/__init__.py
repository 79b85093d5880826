"""Data: one protocol for every kind of matrix, drawn problems, named data sets."""
