"""Records of runs, confidence intervals, identities of configurations, and their differences from the shipped YAML."""
