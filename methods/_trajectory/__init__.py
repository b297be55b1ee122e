"""Trajectory matching: experts, segments, initial images and labels, and the student's views."""
