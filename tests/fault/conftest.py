"""The same options and fixtures as the integration tests: stores, --long, one PostgreSQL for the session."""
from tests.integration.conftest import *  # noqa: F401,F403 pylint: disable=wildcard-import,unused-wildcard-import
