"""Functions shared by several methods: initial images, coresets, matching losses and inner loops."""
