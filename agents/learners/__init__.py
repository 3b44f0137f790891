"""Our own torch agents: rollouts, advantages and updates never leave the device."""
