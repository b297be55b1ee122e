"""Recovery of images from teachers: base classes, the optimisation loop, views and patches."""
