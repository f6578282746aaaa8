"""The PostgreSQL server that FlowStone brings along: its files, its account, its users."""
