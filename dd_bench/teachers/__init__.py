"""Networks trained on the real set: teachers, feature networks, expert buffers, and their soft labels."""
