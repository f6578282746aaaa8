"""Calls of functions on other machines: what goes there, what runs there, and who waits here."""
