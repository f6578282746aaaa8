"""What runs by itself, as values: requests, evaluators, ticks."""
