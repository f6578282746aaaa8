"""The dashboard: pages, their actions and the JSON API, as an ASGI application (extra `web`)."""
