"""Recovery of images from teachers: base classes, optimisation loop, views and patches."""
