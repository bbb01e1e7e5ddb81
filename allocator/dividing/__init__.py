"""Allocation periods: a capacity divided fairly, published by two people, open to anybody's check."""
