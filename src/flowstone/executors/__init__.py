"""Where and when jobs run. Every executor here passes the conformance suite in `flowstone.testing`."""
