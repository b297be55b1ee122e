"""`dd-bench import`: convert distilled sets that authors of papers have released to the format of dd_bench."""
