"""Push, pull, import and export synthetic sets."""
