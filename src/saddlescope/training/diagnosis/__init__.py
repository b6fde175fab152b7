"""Measure what holds a training up, judge it, and say what to change."""
