"""The HTTP server of `segrt serve`."""
