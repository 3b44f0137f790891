"""Episodes as offline reinforcement learning reads them: from policies, from logs, as Minari data sets and Parquet."""
