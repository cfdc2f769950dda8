"""Measuring: one timer for the command line and for benches/."""
