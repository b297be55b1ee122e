"""One paper a module. The folder listing is the catalogue; Hydra's `_target_` is the registry."""
