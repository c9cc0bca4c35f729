"""Where tasks wait, are leased and are remembered. `base` is the contract; each broker lives in a place of its own beside it."""
