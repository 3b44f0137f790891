"""Who answers a slate: the contract, users fitted on logs, users in plain Python, ground-truth users."""
