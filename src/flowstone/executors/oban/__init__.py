"""Durable execution on Oban: the client side (`executor`) and the worker node (`node`)."""
