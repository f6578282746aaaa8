"""Everything durable: the PostgreSQL stores and the embedded server."""
