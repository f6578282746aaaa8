"""Measurements, one module each, that run in the environment of one peer and print one JSON line.

They may import the standard library, the peer, and the modules of this package that do the same; each is run
as `python -m benchmarks.peers.NAME OPTIONS` with its options as JSON.
"""
