"""Reads finished or running runs and draws them: frames, figures and closing tables."""
