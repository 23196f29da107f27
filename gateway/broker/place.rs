//! Where the machines are, and the ARNs and session policy that follow.

use serde_json::{Value, json};

use super::{BrokerError, Scope};
use crate::session::{Document, SessionId, Target, sanitised_name};

/// Partition, region and account of the machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) partition: String,
    pub(super) region: String,
    pub(super) account: String,
}

impl Place {
    /// The place of an account in a region.
    pub(super) fn new(region: &str, account: &str) -> Result<Self, BrokerError> {
        if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
            return Err(BrokerError::Config("account must have twelve digits".to_owned()));
        }
        let partition = match region {
            cn if cn.starts_with("cn-") => "aws-cn",
            gov if gov.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        };
        Ok(Self { partition: partition.to_owned(), region: region.to_owned(), account: account.to_owned() })
    }

    /// What a session's keys may do: this machine, document and session.
    ///
    /// Before AWS has named the session only the person's name is known,
    /// with which AWS begins the ids of all sessions of such keys.
    pub(super) fn session_policy(&self, scope: &Scope, upstream_id: Option<&str>) -> String {
        let known = upstream_id.filter(|id| SessionId::parse(id).is_ok());
        let session =
            known.map_or_else(|| format!("{}-*", sanitised_name(&scope.principal.name)), |id| id.to_owned());
        let session = self.arn("ssm", &format!("session/{session}"));
        let mut statements = vec![json!({
            "Effect": "Allow",
            "Action": ["ssm:ResumeSession", "ssm:TerminateSession", "ssmmessages:OpenDataChannel"],
            "Resource": session,
        })];
        if known.is_none() {
            statements.push(json!({
                "Effect": "Allow",
                "Action": "ssm:StartSession",
                "Resource": [self.target_arn(&scope.target), self.document_arn(&scope.document)],
                // Without it a machine's permission is good for any document.
                "Condition": {"BoolIfExists": {"ssm:SessionDocumentAccessCheck": "true"}},
            }));
        }
        statements.push(self.data_key_statement(scope, known));
        policy(&statements)
    }

    /// Keys for encrypted sessions: of any key that the role may use, but
    /// bound to this machine and session, so good for nothing else.
    fn data_key_statement(&self, scope: &Scope, known: Option<&str>) -> Value {
        let session =
            known.map_or_else(|| format!("{}-*", sanitised_name(&scope.principal.name)), str::to_owned);
        json!({
            "Effect": "Allow",
            // Opened again when another process takes the session over.
            "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
            "Resource": format!("arn:{}:kms:{}:*:key/*", self.partition, self.region),
            "Condition": {
                "StringEquals": {"kms:EncryptionContext:aws:ssm:TargetId": scope.target.as_str()},
                "StringLike": {"kms:EncryptionContext:aws:ssm:SessionId": session},
            },
        })
    }

    /// What the gateway's own keys may do: look at the machines.
    pub(super) fn inventory_policy() -> String {
        policy(&[json!({
            "Effect": "Allow",
            "Action": [
                "ssm:DescribeInstanceInformation", "ssm:ListTagsForResource", "ssm:GetConnectionStatus",
                "ssm:GetDocument", "ssm:DescribeSessions", "tag:GetResources",
            ],
            "Resource": "*",
        })])
    }

    pub(super) fn target_arn(&self, target: &Target) -> String {
        let id = target.as_str();
        if let Some((cluster, task)) = target.ecs_task() {
            return self.arn("ecs", &format!("task/{cluster}/{task}"));
        }
        match id.starts_with("mi-") {
            true => self.arn("ssm", &format!("managed-instance/{id}")),
            false => self.arn("ec2", &format!("instance/{id}")),
        }
    }

    fn document_arn(&self, document: &Document) -> String {
        let name = document.as_str();
        if name.starts_with("arn:") {
            return name.to_owned();
        }
        if name.starts_with("AWS-") {
            // Documents of AWS are in no account, or in one of AWS's own.
            return format!("arn:{}:ssm:{}:*:document/{name}", self.partition, self.region);
        }
        self.arn("ssm", &format!("document/{name}"))
    }

    fn arn(&self, service: &str, resource: &str) -> String {
        format!("arn:{}:{service}:{}:{}:{resource}", self.partition, self.region, self.account)
    }
}

/// The account in the ARN of a role.
pub(super) fn account_of(role_arn: &str) -> Result<&str, BrokerError> {
    let parts: Vec<&str> = role_arn.splitn(6, ':').collect();
    match parts.as_slice() {
        ["arn", _, "iam", "", account, role] if role.starts_with("role/") => Ok(account),
        _ => Err(BrokerError::Config("role_arn must be arn:aws:iam::<account>:role/<name>".to_owned())),
    }
}

fn policy(statements: &[Value]) -> String {
    json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}
