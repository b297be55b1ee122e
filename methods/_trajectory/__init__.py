"""Trajectory matching: experts, segments, initial images and views of the student."""
