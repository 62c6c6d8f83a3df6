"""Scoring one solution: guard, build, correctness, latency."""
