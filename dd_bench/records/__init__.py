"""What a run writes: records, their intervals, and how a configuration differs from the shipped one."""
