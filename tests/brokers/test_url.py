"""URLs, options, and what a mistake in them is answered with."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from stem_iso.brokers.base import BrokerOptions
from stem_iso.brokers.redis.driver.address import Access, Address, Node, Tls, parse
from stem_iso.brokers.sqlite.in_memory import MemoryStore
from stem_iso.brokers.url import open_broker, parse_url
from stem_iso.client.broker_pool import BrokerConfig
from stem_iso.config import WorkerConfig
from stem_iso.errors import BrokerUnavailable, InvalidOptions
from stem_iso.printable import without_password
from stem_iso.testing.contract.steps import envelope


def test_options_come_from_the_query_and_a_keyword_wins() -> None:
    address, options = parse_url("sqlite:///jobs.db?sync=full&block_time=2&max_redeliveries=0", {"block_time": timedelta(seconds=7)})
    assert (address.scheme, address.path) == ("sqlite", "jobs.db")
    assert options == BrokerOptions(sync="full", block_time=7.0, max_redeliveries=0)


def test_paths_are_relative_or_absolute_by_the_number_of_slashes(tmp_path: Path) -> None:
    assert open_broker("sqlite:///a/jobs.db", cwd=str(tmp_path)).url == f"sqlite:///{tmp_path}/a/jobs.db"
    assert open_broker("sqlite:////var/jobs.db", cwd=str(tmp_path)).url == "sqlite:////var/jobs.db"
    assert open_broker("sqlite:///my%20jobs.db", cwd=str(tmp_path)).url == f"sqlite:///{tmp_path}/my jobs.db"
    assert open_broker("sqlite:///jobs.db").url == f"sqlite:///{os.getcwd()}/jobs.db"
    assert open_broker("memory://").url == "memory://"


@pytest.mark.parametrize(
    ("url", "overrides", "says"),
    [
        ("reddis://localhost/0", {}, "did you mean 'redis'"),
        ("REDIS://localhost/0", {}, "did you mean 'redis'"),
        ("redis:/localhost/0", {}, "write redis://HOST/0, with two slashes"),
        ("redis://localhost/zero", {}, "'zero' is no number"),
        ("redis://localhost/1?db=2", {}, "the path says database 1, the option db 2"),
        ("redis://a,b", {}, "redis+cluster://HOST,HOST"),
        ("redis://localhost:port", {}, "host 'localhost' is no number"),
        ("redis://localhost:99999", {}, "out of range: it is a number from 1 to 65535"),
        ("redis://localhost:0/0", {}, "from 1 to 65535"),
        ("redis://localhost/-1", {}, "'-1' is below 0"),
        ("", {}, "broker '' is empty: use sqlite:///PATH, redis://HOST/0 or memory://"),
        (" ", {}, "is empty"),
        ("localhost:6379", {}, "write redis://localhost:6379/0"),
        ("unix:/run/r.sock", {}, "write unix:///PATH"),
        ("rediss:h", {}, "write rediss://HOST/0"),
        ("redis.db", {}, "write sqlite:///redis.db for a file"),
        ("sqlite:jobs.db", {}, "write sqlite:///jobs.db (relative) or sqlite:////jobs.db (absolute)"),
        ("memory", {}, "write memory://"),
        (":memory:", {}, "write memory://"),
        ("redis://::1", {}, "[::1]:6379"),
        ("redis://ann@localhost", {}, ":PASSWORD@"),
        ("redis://localhost?blocktime=1", {}, "did you mean 'block_time'"),
        ("redis://localhost?ssl_ca_certs=/ca.pem", {}, "rediss://"),
        ("rediss://localhost?ssl_ca_cert=/ca.pem", {}, "did you mean 'ssl_ca_certs'"),
        ("rediss://localhost?ssl_cert_reqs=maybe", {}, "required, optional or none"),
        ("rediss://localhost?ssl_check_hostname=perhaps", {}, "true or false"),
        ("rediss://localhost?ssl_keyfile=/k.pem", {}, "ssl_certfile"),
        ("redis+cluster://a,b/1", {}, "database 0 only"),
        ("redis+cluster://a?ssl_ca_certs=/ca.pem", {}, "rediss+cluster://"),
        ("unix://run/redis.sock", {}, "three slashes"),
        ("unix://", {}, "names no socket"),
        ("sqlit:///x.db", {}, "did you mean 'sqlite'"),
        ("jobs.db", {}, "sqlite:///jobs.db"),
        ("sqlite://jobs.db", {}, "sqlite:///jobs.db"),
        ("sqlite://", {}, "sqlite:///stem_iso.db"),
        ("sqlite:///", {}, "names no file"),
        ("sqlite:///folder/", {}, "names no file"),
        ("sqlite:///:memory:", {}, "memory://"),
        ("memory://name", {}, "no path"),
        ("memory://?blocktime=1", {}, "did you mean 'block_time'"),
        ("memory://?block_time", {}, "block_time=VALUE"),
        ("memory://", {"synch": "full"}, "did you mean 'sync'"),
        ("memory://", {"sync": "ful"}, "normal or full"),
        ("memory://", {"block_time": 0}, "block_time is 0"),
        ("memory://", {"block_time": "soon"}, "'soon'"),
        ("memory://", {"claim_interval": float("nan")}, "above 0"),
        ("memory://", {"dead_letter_ttl": float("inf")}, "above 0"),
        ("memory://", {"block_time": timedelta(days=36_526)}, "block_time is datetime.timedelta(days=36526)"),
        ("sqlite:///jobs.db?default_visibility_timeout=4e9", {}, "100 years at most"),
        ("memory://", {"max_redeliveries": -1}, "from 0 up"),
        ("memory://", {"max_redeliveries": True}, "from 0 up"),
        ("memory://", {"max_payload_bytes": 1.5}, "whole number"),
        ("memory://", {"max_result_bytes": 0}, "from 1 up"),
        ("memory://", {"max_result_bytes": None}, "whole number"),
    ],
)
def test_a_mistake_is_named_with_the_way_out(url: str, overrides: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidOptions) as caught:
        parse_url(url, overrides)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://u:hunter@host/jobs.db",
        "sqlite://u:hun/ter@host",
        "sqlite://u:hun?ter@host",
        "sqlite://:hunter@",
        "memory://u:hunter@host",
        "u:hunter@host/0",
        "postgres://u:hunter@host/0",
        "redis:/u:hunter@host/0",
        "sqlite://u:hunter@host?block_time",
        "redis://u:hunter@host:port",
        "redis://u:hunter@host?db=x",
        b"redis://u:hunter@host",
    ],
)
def test_no_error_shows_what_could_be_a_password(url: str) -> None:
    with pytest.raises(InvalidOptions) as caught:
        parse_url(url)
    assert "hun" not in str(caught.value)
    assert "ter@" not in str(caught.value)
    if isinstance(url, str):
        assert "hun" not in repr(WorkerConfig(broker=url))


def test_an_at_sign_in_the_path_of_a_file_is_no_password() -> None:
    assert parse_url("sqlite:////home/ann@work/jobs.db")[0].path == "/home/ann@work/jobs.db"
    assert without_password("sqlite:////home/ann@work/jobs.db?sync=full") == "sqlite:////home/ann@work/jobs.db?sync=full"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("redis://", Address((Node(),))),
        ("redis://h:7/3", Address((Node("h", 7),), Access(db=3))),
        ("redis://h?db=3&block_time=1", Address((Node("h"),), Access(db=3))),
        ("redis://:p%2F%40%3Fs@h", Address((Node("h"),), Access(None, "p/@?s"))),
        ("redis://a%3Ab:c:d@h", Address((Node("h"),), Access("a:b", "c:d"))),
        ("redis://[::1]:7/0", Address((Node("::1", 7),))),
        ("redis://[::1]", Address((Node("::1"),))),
        ("unix:///run/r%20s.sock?db=2", Address((Node(path="/run/r s.sock"),), Access(db=2))),
        ("unix://u:p@/run/r.sock", Address((Node(path="/run/r.sock"),), Access("u", "p"))),
        ("rediss://h?ssl_ca_certs=%2Fc&ssl_cert_reqs=none", Address((Node("h"),), Access(tls=Tls("/c", cert_reqs="none")))),
        ("redis+cluster://:p@a:1,b:2", Address((Node("a", 1), Node("b", 2)), Access(None, "p"), cluster=True)),
        ("rediss+cluster://a", Address((Node("a"),), Access(tls=Tls()), cluster=True)),
    ],
)
def test_a_redis_url_says_where_the_servers_are_and_who_comes(url: str, found: Address) -> None:
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    options = dict(pair.split("=") for pair in query.replace("%2F", "/").split("&") if pair and "block_time" not in pair)
    assert parse(scheme, place, options) == found
    assert parse_url(url)[0].scheme == scheme


@pytest.mark.parametrize(
    "url",
    [
        "redis://ann:hunter2@h/0",
        "redis://:hunter2@h/0",
        "rediss://ann:hunter2@h/0",
        "unix://ann:hunter2@/run/r.sock",
        "redis+cluster://ann:hunter2@a,b",
        "redis://:hunter2@h/zero",
        "redis://:hunter2@h:port",
        "redis://:hunter2",  # forgot the host
        "redis://ann:hunter2",
        "redis://:hun/hunter2@h",
        "redis://:hun@hunter2@h",
        "redis://:hun?hunter2@h",
        "redis://ann:hun?hunter2=x@h",
        "redis://:hunter2@h?sync",
        "redis://:hunter2@h?snyc=full",
        "rediss://:hunter2@h?ssl_cert_reqs=maybe",
        "reddis://:hunter2@h",
        "redis://hunter2@h",
        "redis:/:hunter2@h",
        "REDISS:ann:hunter2@h",
    ],
)
def test_a_password_is_never_shown(url: str) -> None:
    try:
        shown = repr(parse_url(url)) + repr(BrokerConfig(url, {}).shown)
    except InvalidOptions as error:
        shown = str(error)
    assert "hunter2" not in shown


def test_redis_is_not_imported_before_it_is_connected_to() -> None:
    program = """
import sys
import stem_iso
from stem_iso.brokers.url import parse_url
from stem_iso.brokers.redis.driver.standalone import connect
from stem_iso.brokers.redis.driver.address import parse
stem_iso.Stem("sqlite:///jobs.db").open_broker()
parse_url("redis://127.0.0.1:1/0")
client = connect(parse("redis", "127.0.0.1:1/0", {}))
assert "redis" not in sys.modules
try:
    client.command("k", "PING")
except stem_iso.BrokerUnavailable:
    assert "redis" in sys.modules
else:
    raise SystemExit("who listens there?")
"""
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_is_opened_and_sqlite3_is_not_imported_before_the_first_use(tmp_path: Path) -> None:
    program = """
import sys
from stem_iso.brokers.url import open_broker
brokers = [open_broker("sqlite:///jobs.db"), open_broker("memory://")]
assert "sqlite3" not in sys.modules
brokers[1].queues()
assert "sqlite3" in sys.modules
"""
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_memory_brokers_share_the_store_they_were_given() -> None:
    store = MemoryStore()
    first, second, stranger = (open_broker("memory://", store=given) for given in (store, store, None))
    first.publish([envelope()])
    assert len(second.queues()) == 1
    assert stranger.queues() == []


def test_a_missing_folder_is_named_as_missing(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable, match="there is no folder"):
        open_broker("sqlite:///nowhere/jobs.db", cwd=str(tmp_path)).publish([envelope()])
