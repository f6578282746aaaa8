"""A web shop in FastAPI that writes an order and asks for its invoice in one transaction."""
