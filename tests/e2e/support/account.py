"""An account that tells everything of its machines: as much of STS, SSM and tagging as listing them takes."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROLE = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>\
<AccessKeyId>ASIAOFTHEROLE</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>\
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""

GATEWAY = """
[[broker.accounts]]
role_arn = "arn:aws:iam::{account}:role/PosternBroker"
region = "eu-west-1"
ssm_endpoint_url = "{url}"
sts_endpoint_url = "{url}"
tagging_endpoint_url = "{url}"
"""


class Account:
    """Managed instances, each one tagged; `rows` are SSM's own words for them."""

    def __init__(self, number: str, rows: list[dict], tags: dict[str, str]):
        self.number, self.rows, self.tags = number, rows, tags
        account = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
                answer = json.dumps(account.answer(operation, body)) if operation else ROLE
                self.send_response(200)
                self.send_header("Content-Type", "application/x-amz-json-1.1" if operation else "text/xml")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, operation: str, body: bytes) -> dict:
        if operation == "ListTagsForResource":
            return {"TagList": [{"Key": key, "Value": value} for key, value in self.tags.items()]}
        if operation == "DescribeSessions":
            return {"Sessions": []}
        assert operation == "DescribeInstanceInformation", operation
        filters = json.loads(body).get("Filters", [])
        wanted = filters[0]["Values"] if filters else [row["InstanceId"] for row in self.rows]
        return {"InstanceInformationList": [row for row in self.rows if row["InstanceId"] in wanted]}

    @property
    def configured(self) -> str:
        """What a gateway's configuration says of it."""
        return GATEWAY.format(account=self.number, url=f"http://127.0.0.1:{self.server.server_port}")

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
