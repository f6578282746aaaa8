"""The observed app as the command line finds it."""

from __future__ import annotations

import os

from tests.observability.observed_app import make_flow

flow = make_flow(os.environ["FLOWSTONE_DATABASE_URL"], os.environ["FLOWSTONE_STORAGE"])
