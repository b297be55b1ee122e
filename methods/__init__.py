"""Distillation methods, one module per paper. `_target_` in `conf/method/*.yaml` selects the class."""
