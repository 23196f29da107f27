"""`postern serve` beside a demo, whose machines it leads to: it can be stopped and killed, and they go on."""

import json
import signal
import subprocess
from pathlib import Path

from .demo import PATIENCE, Demo, binary, eventually, plain_environment
from .network import free_port

CONFIG = """\
state_directory = "{folder}/state"
[listen]
address = "127.0.0.1:{port}"
public_url = "{url}"
certificate = "{certificate}"
key = "{key}"
[admin]
address = "127.0.0.1:{admin}"
[identity]
allowed_accounts = ["{account}"]
regions = ["{region}"]
sts_endpoint_url = "{aws}"
ca_bundle = "{tls}/ca.pem"
[policy]
directory = "{policies}"
[broker]
region = "{region}"
account = "{account}"
ssm_endpoint_url = "{aws}"
sts_endpoint_url = "{aws}"
kms_endpoint_url = "{aws}"
tagging_endpoint_url = "{aws}"
role_arn = "arn:aws:iam::{account}:role/PosternBroker"
ca_bundle = "{tls}/ca.pem"
starts_per_second = 0
"""


class Apart(Demo):
    """A gateway in a process of its own, used by the people of a demo; `more` is appended to its configuration.

    With another name it has the certificate that `certificate` makes for that. `policies` is a folder that
    it has instead of the demo's, `variables` are added to its environment.
    """

    def __init__(
        self,
        demo: Demo,
        folder: Path,
        more: str = "",
        name: str = "127.0.0.1",
        certificate=None,
        policies: Path | None = None,
        variables: dict | None = None,
    ):
        self.demo, self.folder, self.variables = demo, folder, variables or {}
        port, admin = free_port(), free_port()
        self.port = port
        endpoint = f"https://{name}:{port}"
        tls = demo.state / "tls"
        pem, key = certificate(demo, folder, [name]) if certificate else (tls / "server.pem", tls / "server.key")
        recordings = folder / "state/recordings"
        self.facts = demo.facts | {
            "endpoint": endpoint,
            "ready_url": f"http://127.0.0.1:{admin}/readyz",
            "metrics_url": f"http://127.0.0.1:{admin}/metrics",
            "recordings": str(recordings),
        }
        text = CONFIG.format(
            folder=folder,
            port=port,
            admin=admin,
            tls=tls,
            url=endpoint,
            certificate=pem,
            key=key,
            account=demo.facts["identities"][0]["arn"].split(":")[4],
            region=demo.facts["region"],
            aws=demo.facts["aws_endpoint"],
            policies=policies or demo.state / "policies",
        )
        (folder / "postern.toml").write_text(text + f'[recorder]\nspool = "{recordings}"\n' + more)
        profiles = Path(demo.facts["aws_config_file"]).read_text().replace(demo.facts["endpoint"], endpoint)
        (folder / "aws-config").write_text(profiles)
        self.env = demo.env | {"AWS_CONFIG_FILE": str(folder / "aws-config"), "POSTERN_CACHE_DIR": str(folder / "cache")}
        self.log = folder / "serve.log"
        self.start()

    @property
    def environment(self) -> dict:
        """What the gateway runs with: keys of its own."""
        keys = json.loads((self.demo.state / "identities.json").read_text())["keys"]
        broker = next(key for key in keys if key["name"] == "gateway")
        return plain_environment() | {
            "AWS_ACCESS_KEY_ID": broker["access_key_id"],
            "AWS_SECRET_ACCESS_KEY": broker["secret_access_key"],
            **self.variables,
        }

    def start(self):
        """Starts the process (again) and waits until it takes sessions."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [binary(), "serve", "--config", self.folder / "postern.toml"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        def is_ready():
            assert self.process.poll() is None, self.log.read_text()
            return self.is_ready()

        eventually(is_ready, "the gateway to be ready")

    def end(self, number: int):
        """SIGKILL, or SIGTERM as a service manager stops it."""
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        assert number == signal.SIGKILL or code == 0, self.log.read_text()
