"""AWS's own services as moto has them: logs, s3, sns, sqs and kms behind one address."""

import boto3
from moto.server import ThreadedMotoServer

REGION = "us-east-1"
# moto takes any keys.
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAANYBODY", "AWS_SECRET_ACCESS_KEY": "any", "AWS_REGION": REGION}


class Moto:
    """A moto server on a port of its own choice."""

    def __init__(self):
        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.server.start()
        host, port = self.server.get_host_and_port()
        self.url = f"http://{host}:{port}"

    def client(self, service: str):
        """boto3's client of that service."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )

    def key(self, description: str) -> str:
        """The ARN of a new KMS key."""
        return self.client("kms").create_key(Description=description)["KeyMetadata"]["Arn"]

    def stop(self):
        self.server.stop()
