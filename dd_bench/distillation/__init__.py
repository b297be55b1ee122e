"""What several methods share: initial images, coresets, matching losses, unrolled inner loops."""
