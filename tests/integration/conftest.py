"""Fixtures of the black-box tests: a node on each store, its API and CLI, executors."""
import os
import re
import signal
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from tests.harness.fake_executor import FakeExecutor  # noqa: E402
from tests.harness.kelou import Group, Keloud, SampleExecutor  # noqa: E402
from tests.harness.servers import Postgres, postgres_bin  # noqa: E402
from tests.harness.world import Scene  # noqa: E402

STORES = ("sqlite", "postgres")


def pytest_addoption(parser):
    parser.addoption("--store", action="append", choices=STORES, help="only this store (may be repeated)")
    parser.addoption("--long", action="store_true", help="the long form of the tests that have one")


def pytest_configure(config):
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that fixtures end what they started
    config.addinivalue_line("markers", "long: only with --long")


def pytest_generate_tests(metafunc):
    if "store" in metafunc.fixturenames:
        metafunc.parametrize("store", metafunc.config.getoption("--store") or STORES, scope="module")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        for item in items:
            if "long" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="only with --long"))


@pytest.fixture(scope="session")
def postgres_server():
    """One PostgreSQL for the whole session; each test takes a database of its own."""
    if not postgres_bin():
        pytest.skip("PostgreSQL is not installed")
    with Postgres() as server:
        yield server


@pytest.fixture
def store_url(store, request, tmp_path):
    """The URL of a new empty database of the parametrised store."""
    if store == "postgres":
        return request.getfixturevalue("postgres_server").create_database()
    return f"sqlite:{tmp_path}/kelou.db"


def end_node(node, alive=False):
    """Stop a node; what it says at its end must be good. `alive`: it has no business to have ended before."""
    alive = alive or node.alive()
    code = node.stop()
    log = node.log_text()
    assert not re.search(r"AddressSanitizer|ThreadSanitizer|runtime error:|LeakSanitizer", log), log[-6000:]
    assert not alive or code == 0, f"keloud ended with {code}: {log[-4000:]}"


@pytest.fixture(scope="module")
def world_settings():
    """The settings of a module's shared node: a module may have its own."""
    return {"executor.lost_after": "4s", "trigger.zone_poll": "1s"}


@pytest.fixture(scope="module")
def world(store, request, tmp_path_factory, world_settings):
    """One node for the tests of a module, on each store."""
    folder = tmp_path_factory.mktemp("world")
    url = request.getfixturevalue("postgres_server").create_database() if store == "postgres" else f"sqlite:{folder}/kelou.db"
    shared = Keloud(folder, url, world_settings).start()
    yield shared
    end_node(shared, alive=True)


@pytest.fixture
def scene(world, tmp_path):
    """A test's own group, executors and tasks in the shared node."""
    mine = Scene(world, tmp_path)
    yield mine
    mine.done()


@pytest.fixture
def make_node(store_url, tmp_path):
    """make_node(name=…, settings={…}) → a Keloud that is not started; all are ended after the test."""
    made = []

    def make(name="node", settings=None, environment=None, url=None):
        node = Keloud(tmp_path / name, url or store_url, settings, environment)
        made.append(node)
        return node
    yield make
    for node in made:
        end_node(node)


@pytest.fixture
def node(make_node):
    """A node that is ready."""
    return make_node().start()


@pytest.fixture
def api(node):
    """The REST API as the administrator."""
    return node.api()


@pytest.fixture
def group(node):
    """An executor group called sample with its secret and token."""
    return Group(node)


@pytest.fixture
def make_executor(node, group, tmp_path):
    """make_executor(name=…, …) → a started FakeExecutor; all are stopped after the test."""
    made = []

    def make(name="fake-1", in_group=None, **options):
        options.setdefault("journal", str(tmp_path / f"{name}.journal"))
        executor = FakeExecutor(node, in_group or group, name, **options).start()
        made.append(executor)
        return executor
    yield make
    for executor in made:
        executor.stop()


@pytest.fixture
def executor(make_executor):
    """A scripted executor that accepts and reports SUCCESS."""
    return make_executor()


@pytest.fixture
def sample_executor(node, group, tmp_path):
    """The sample executor of the C SDK, registered."""
    executor = SampleExecutor(tmp_path / "sample", node, group).start()
    yield executor
    executor.stop()
