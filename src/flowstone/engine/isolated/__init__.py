"""What isolated calls consist of: messages, references to functions, exceptions on their way, both processes."""
