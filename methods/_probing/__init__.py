"""Sets for linear probes of frozen backbones: base classes, pyramid images, views, and features with little memory."""
