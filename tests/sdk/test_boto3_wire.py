"""What botocore does underneath: checksums, compression, retries, pools, other ways to an endpoint.

``Proxy`` stands between botocore and the server and spoils the first answer, so that what botocore
does about it is seen through the real server.
"""

from __future__ import annotations

import gzip
import http.client
import http.server
import json
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError


class Proxy(http.server.ThreadingHTTPServer):
    """Passes requests on; ``spoil`` may change (status, body) of the first answer."""

    daemon_threads = True

    def __init__(self, endpoint, spoil):
        super().__init__(("127.0.0.1", 0), ProxyHandler)
        self.target = urlsplit(endpoint)
        self.spoil = spoil
        self.requests = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class ProxyHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        target = self.server.target
        onward = http.client.HTTPConnection(target.hostname, target.port)
        onward.request("POST", "/", body, dict(self.headers))
        response = onward.getresponse()
        status, answer = response.status, response.read()
        headers = dict(response.getheaders())
        onward.close()
        self.server.requests += 1
        if self.server.requests == 1:
            status, answer = self.server.spoil(status, answer)
        self.send_response(status)
        for name in ("Content-Type", "x-amz-crc32", "x-amzn-RequestId"):
            self.send_header(name, headers[name])
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_arguments):
        """Say nothing."""


@pytest.fixture
def proxied(endpoint, access_key):
    """Makes (proxy, client) that talk through it."""
    running, clients = [], []

    def make(spoil, **config):
        proxy = Proxy(endpoint, spoil)
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((proxy, thread))
        clients.append(
            boto3.client(
                "dynamodb",
                endpoint_url=proxy.url,
                region_name="us-east-1",
                aws_access_key_id=access_key,
                aws_secret_access_key="secret",
                config=Config(**config),
            )
        )
        return proxy, clients[-1]

    yield make
    for client in clients:
        client.close()
    for proxy, thread in running:
        proxy.shutdown()
        thread.join()
        proxy.server_close()


@pytest.mark.parametrize("mode", ["legacy", "standard"])
def test_botocore_checks_our_checksum(proxied, mode):
    # A byte is lost on the way: botocore sees it by x-amz-crc32 and asks again.
    proxy, client = proxied(
        lambda status, answer: (status, answer.replace(b"TableNames", b"TableNamez")),
        retries={"mode": mode, "total_max_attempts": 3},
    )
    assert client.list_tables()["TableNames"] == []
    assert proxy.requests == 2


def test_a_write_is_retried_after_a_server_error(proxied, fresh):
    # The first answer is lost after the write was done; the second try must do no harm.
    name = fresh()
    proxy, client = proxied(
        lambda status, answer: (503, b'{"__type":"ServiceUnavailable"}'),
        retries={"mode": "standard", "total_max_attempts": 3},
    )
    with pytest.raises(client.exceptions.ResourceInUseException):
        client.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        )
    assert proxy.requests == 2
    assert client.list_tables()["TableNames"] == [name]


def test_what_a_client_did_wrong_is_not_retried(proxied, fresh):
    # It would only be refused again: the classes of our errors must be those that say so.
    proxy, client = proxied(lambda *answer: answer, retries={"total_max_attempts": 3})
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_table(TableName=fresh())
    assert proxy.requests == 1


def test_a_compressed_answer_passes_the_checksum(aws, endpoint, access_key, fresh):
    # SDKs of other languages ask for gzip, and check the CRC of the bytes as they came. botocore
    # asks for identity; told to ask for gzip, it checks the same and leaves unpacking to us.
    client = aws("client", config=Config(retries={"mode": "standard", "total_max_attempts": 2}))
    for number in range(60):
        client.create_table(
            TableName=f"{number:02}-{fresh('t' * 60)}",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        )
    seen = []

    def ask(request, **_):
        request.headers["Accept-Encoding"] = "gzip"

    def unpack(response_dict, **_):
        assert response_dict["headers"]["Content-Encoding"] == "gzip"
        body = response_dict["body"]
        seen.append((zlib.crc32(body), response_dict["headers"]["x-amz-crc32"]))
        response_dict["body"] = gzip.decompress(body)

    client.meta.events.register("before-send.dynamodb.ListTables", ask)
    client.meta.events.register("before-parse.dynamodb.ListTables", unpack)
    assert len(client.list_tables()["TableNames"]) == 60
    # One try: botocore's own check was content.
    assert [(str(computed)) for computed, _ in seen] == [told for _, told in seen]
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
    ],
)
def test_a_compressed_request_is_unpacked(client, table, key, coding, pack):
    # DynamoDB's model asks botocore for no request compression; the service takes it all the same,
    # and proxies and other SDKs use it.
    def compress(request, **_):
        request.data = pack(request.data)
        request.headers["Content-Encoding"] = coding

    client.meta.events.register("request-created.dynamodb.PutItem", compress, f"pack-{coding}")
    try:
        item = {**key, "text": {"S": "x" * 10_000}}
        client.put_item(TableName=table, Item=item)
    finally:
        client.meta.events.unregister("request-created.dynamodb.PutItem", None, f"pack-{coding}")
    assert client.get_item(TableName=table, Key=key)["Item"] == item


def test_threads_share_a_client(client, table, fresh):
    # Clients are thread-safe and keep ten connections; counting must not lose a step.
    key = {"pk": {"S": fresh()}, "sk": {"S": "s"}}

    def add(_):
        client.update_item(
            TableName=table,
            Key=key,
            UpdateExpression="ADD n :one",
            ExpressionAttributeValues={":one": {"N": "1"}},
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(80)))
    assert client.get_item(TableName=table, Key=key)["Item"]["n"] == {"N": "80"}


def test_large_bodies_expect_100_continue(client, table, key):
    # botocore sends Expect where a model asks for it; here it is asked for by hand.
    def expect(request, **_):
        request.headers["Expect"] = "100-continue"

    client.meta.events.register("before-send.dynamodb.PutItem", expect, "expect")
    try:
        client.put_item(TableName=table, Item={**key, "text": {"S": "x" * 100_000}})
    finally:
        client.meta.events.unregister("before-send.dynamodb.PutItem", None, "expect")
    assert len(client.get_item(TableName=table, Key=key)["Item"]["text"]["S"]) == 100_000


def test_the_endpoint_may_come_from_the_environment(endpoint, access_key, monkeypatch):
    # As containers and CI set it: the program says nothing of an endpoint.
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    client = boto3.session.Session().client("dynamodb")
    try:
        assert client.meta.endpoint_url == endpoint
        assert client.list_tables()["TableNames"] == []
    finally:
        client.close()


def test_a_presigned_url_is_a_request(client, table, key):
    # The signature is in the query string; whoever has the URL sends the body that it was made for.
    client.put_item(TableName=table, Item=key)
    url = urlsplit(client.generate_presigned_url("list_tables", Params={"Limit": 1}, ExpiresIn=60))
    connection = http.client.HTTPConnection(url.hostname, url.port)
    headers = {
        "X-Amz-Target": "DynamoDB_20120810.ListTables",
        "Content-Type": "application/x-amz-json-1.0",
    }
    connection.request("POST", f"{url.path or '/'}?{url.query}", json.dumps({"Limit": 1}), headers)
    response = connection.getresponse()
    told = json.loads(response.read())
    connection.close()
    assert (response.status, told["TableNames"]) == (200, [table])


def test_namespaces_do_not_see_each_other(aws, client, table, endpoint, fresh):
    # Only an access key that begins with ns- has a namespace of its own; each test relies on it.
    other = aws("client")
    with pytest.raises(other.exceptions.ResourceNotFoundException):
        other.describe_table(TableName=table)
    # Every other key, in any region, sees one database.
    name = fresh("everybody")
    found = []
    for access_key, region in (("AKIA1", "us-east-1"), ("AKIA2", "ap-southeast-2")):
        each = boto3.client(
            "dynamodb",
            endpoint_url=endpoint,
            region_name=region,
            aws_access_key_id=access_key,
            aws_secret_access_key=access_key,
        )
        if not found:
            each.create_table(
                TableName=name,
                BillingMode="PAY_PER_REQUEST",
                KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            )
        found.append(each.describe_table(TableName=name)["Table"]["TableId"])
        if len(found) == 2:
            each.delete_table(TableName=name)
        each.close()
    assert found[0] == found[1]


def test_an_unsigned_request_is_refused(aws):
    # A forgotten signature must not work here and fail on AWS.
    from botocore import UNSIGNED

    unsigned = aws("client", config=Config(signature_version=UNSIGNED))
    with pytest.raises(ClientError) as caught:
        unsigned.list_tables()
    assert caught.value.response["Error"]["Code"] == "MissingAuthenticationTokenException"
