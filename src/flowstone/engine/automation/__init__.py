"""What runs by itself: the loop of a node, and what it evaluates."""
