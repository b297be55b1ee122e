"""Recovery of images from teachers: the optimisation loop, views and patches."""
