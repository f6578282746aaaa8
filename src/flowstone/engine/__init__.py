"""What running means: planning, the one step runner, and the driver of inline runs."""
