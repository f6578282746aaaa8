"""What ready-made sensors look at: files and rows that others write."""
