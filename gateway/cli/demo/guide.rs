//! What the demo writes and prints: AWS profiles, `demo.json`, the tour.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use super::people::{CAST, People};
use super::trust::Trust;
use super::{DEV, PROD, REGION, private_file, private_folder};
use crate::client::aws_config_file::{GatewayProfile, command_word, edited};
use crate::serve::Gateway;

/// A running demo and where its things lie.
pub(super) struct Place<'a> {
    pub(super) state: &'a Path,
    pub(super) trust: &'a Trust,
    pub(super) people: &'a People,
    pub(super) gateway: &'a Gateway,
    /// Where the embedded AWS listens.
    pub(super) aws: &'a str,
}

impl Place<'_> {
    /// Writes everything that clients and scripts read.
    pub(super) fn write(&self, aws_bin: Option<&Path>) -> anyhow::Result<()> {
        private_folder(&self.state.join("aws"))?;
        let program = self.link_programs()?;
        let aws_bin = aws_bin.map(std::path::absolute).transpose()?;
        private_file(&self.state.join("aws/credentials"), &self.people.credentials_file())?;
        private_file(&self.config_file(), &self.profiles(&program)?)?;
        private_file(&self.state.join("env.sh"), &self.environment(aws_bin.as_deref()))?;
        let text = serde_json::to_string_pretty(&self.description())?;
        private_file(&self.state.join("demo.json"), &format!("{text}\n"))
    }

    /// Prints the tour on standard output.
    pub(super) fn print(&self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        write!(out, "{}", self.tour()?)?;
        out.flush()?;
        Ok(())
    }

    fn config_file(&self) -> PathBuf {
        self.state.join("aws/config")
    }

    /// `bin/postern` and `bin/session-manager-plugin` are this very binary.
    fn link_programs(&self) -> anyhow::Result<PathBuf> {
        let program = std::env::current_exe().context("cannot find the postern binary")?;
        let bin = self.state.join("bin");
        private_folder(&bin)?;
        for name in ["postern", "session-manager-plugin"] {
            let link = bin.join(name);
            if std::fs::symlink_metadata(&link).is_ok() {
                std::fs::remove_file(&link)?;
            }
            std::os::unix::fs::symlink(&program, &link)
                .with_context(|| format!("cannot make {}", link.display()))?;
        }
        Ok(bin.join("postern"))
    }

    fn profiles(&self, program: &Path) -> anyhow::Result<String> {
        // What AWS itself is asked goes to the embedded one.
        let mut text = format!(
            "# Written by postern demo at every start.\n\n[services demo-aws]\nsts =\n  endpoint_url = {}\n",
            self.aws
        );
        for role in CAST {
            text.push_str(&format!(
                "\n[profile {}-iam]\nregion = {REGION}\nservices = demo-aws\n",
                role.name
            ));
            text = edited(&text, &self.profile(role.name, program)?)?;
        }
        Ok(text)
    }

    fn profile(&self, name: &str, program: &Path) -> anyhow::Result<GatewayProfile> {
        let words = [
            &program.display().to_string(),
            "credentials",
            "--gateway",
            &self.gateway.public_url,
            "--source-profile",
            &format!("{name}-iam"),
            "--region",
            REGION,
            "--ca-bundle",
            &self.trust.bundle.display().to_string(),
        ];
        let words: Vec<String> = words.into_iter().map(command_word).collect::<Result<_, _>>()?;
        Ok(GatewayProfile {
            name: name.to_owned(),
            region: REGION.to_owned(),
            gateway: self.gateway.public_url.clone(),
            credential_process: words.join(" "),
            ca_bundle: Some(self.trust.bundle.display().to_string()),
        })
    }

    fn environment(&self, aws_bin: Option<&Path>) -> String {
        let state = self.state.display();
        let aws = aws_bin.map(|bin| format!(":'{}'", bin.display())).unwrap_or_default();
        format!(
            "# For a shell: . '{state}/env.sh'\n\
             export AWS_CONFIG_FILE='{state}/aws/config'\n\
             export AWS_SHARED_CREDENTIALS_FILE='{state}/aws/credentials'\n\
             export POSTERN_CACHE_DIR='{state}/cache'\n\
             # The CLI reads the first, Session Manager plugins the second; both hold the public roots too.\n\
             export AWS_CA_BUNDLE='{0}' SSL_CERT_FILE='{0}'\n\
             export PATH='{state}/bin':\"$PATH\"{aws}\n\
             unset AWS_PROFILE AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_ENDPOINT_URL AWS_ENDPOINT_URL_SSM\n",
            self.trust.bundle.display()
        )
    }

    fn description(&self) -> serde_json::Value {
        let identities: Vec<_> = CAST
            .iter()
            .map(|role| json!({"name": role.name, "profile": role.name, "arn": role.arn, "may": role.may}))
            .collect();
        let targets: Vec<_> = [(DEV, "dev"), (PROD, "prod")]
            .iter()
            .map(|((id, name), env)| json!({"id": id, "name": name, "env": env}))
            .collect();
        let profiles: Vec<_> = CAST.iter().map(|role| role.name).collect();
        json!({
            "endpoint": self.gateway.public_url,
            "console": self.people.console_url(&self.gateway.public_url),
            "aws_endpoint": self.aws,
            "ca_bundle": self.trust.bundle,
            "ca_certificate": self.trust.authority,
            "aws_config_file": self.config_file(),
            "aws_shared_credentials_file": self.state.join("aws/credentials"),
            "environment_file": self.state.join("env.sh"),
            "profiles": profiles,
            "identities": identities,
            "targets": targets,
            "region": REGION,
            "metrics_url": format!("http://{}/metrics", self.gateway.admin_address),
            "ready_url": format!("http://{}/readyz", self.gateway.admin_address),
            "recordings": self.state.join("recordings"),
            "policies": self.state.join("policies"),
            "bin": self.state.join("bin"),
            "pid": std::process::id(),
        })
    }

    fn tour(&self) -> anyhow::Result<String> {
        // Pasted into a shell, so a path with a space is quoted.
        let word = |path: &Path| command_word(&path.display().to_string());
        let env = format!(". {}", word(&self.state.join("env.sh"))?);
        let (dev, prod) = (DEV.0, PROD.0);
        let metrics = self.gateway.admin_address;
        let policies = word(&self.state.join("policies"))?;
        let mut people = String::new();
        for role in CAST {
            people.push_str(&format!("  {:<6} {}\n", role.name, role.may));
        }
        Ok(format!(
            "\nPostern is running at {url}\n\n{people}\n\
             In a browser (this address lets you be any of them; the certificate is the demo's own):\n\n\
             \x20 {console}\n\n\
             Paste these into another terminal (each works by itself):\n\n\
             \x20 # a recorded shell with the AWS CLI, and with Postern's own client\n\
             \x20 {env}; aws ssm start-session --profile alice --target {dev}\n\
             \x20 {env}; postern connect --profile alice web-dev\n\n\
             \x20 # one command with its exit code; a port of the machine, here the gateway's metrics\n\
             \x20 {env}; postern exec --profile alice web-dev -- uname -a\n\
             \x20 {env}; postern forward --profile alice web-dev 0:{admin_port}\n\n\
             \x20 # refused, with the reason; then allowed, because a reason is given\n\
             \x20 {env}; aws ssm start-session --profile bob --target {prod}\n\
             \x20 {env}; aws ssm start-session --profile alice --target {prod} --reason 'look at the disk'\n\n\
             \x20 # what went on, and what they saw (the last session ended)\n\
             \x20 {env}; postern sessions list --history --profile carol\n\
             \x20 {env}; postern replay --profile carol last\n\
             \x20 {env}; postern search --profile carol --commands exit\n\n\
             \x20 # the policies ({policies}), the metrics, the whole way checked\n\
             \x20 {env}; postern policy check {policies}\n\
             \x20 curl -s http://{metrics}/metrics\n\
             \x20 {env}; postern doctor --profile alice --target {dev}\n\n\
             Ctrl-C stops it; recordings and identities stay in {state}.\n",
            url = self.gateway.public_url,
            console = self.people.console_url(&self.gateway.public_url),
            state = self.state.display(),
            admin_port = metrics.port(),
        ))
    }
}
