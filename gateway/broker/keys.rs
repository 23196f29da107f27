//! Where keys come from: the gateway's own, and one set per session.

use std::sync::Arc;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_sts::types::Tag;
use tokio::sync::Mutex;

use super::aws::Aws;
use super::gate::Gate;
use super::place::Place;
use super::{BrokerConfig, BrokerError, Keys, Operation, Scope};
use crate::session::sanitised_name;

/// RoleSessionName and SourceIdentity of calls that are nobody's.
const GATEWAY_NAME: &str = "postern";
/// The session tag by which SSM is told which user to run a session as.
const RUN_AS: &str = "SSMSessionRunAs";
/// Longest value of a session tag, characters.
const TAG_MAX: usize = 256;

/// Gives out keys: with a role they are narrowed, without they are ours.
pub(super) struct KeySource {
    sts: aws_sdk_sts::Client,
    credentials: SharedCredentialsProvider,
    role: Option<Role>,
    place: Arc<Place>,
    calls: Arc<Gate>,
    own: Mutex<Option<Keys>>,
    inventory: Mutex<Option<Keys>>,
}

struct Role {
    arn: String,
    external_id: Option<String>,
    seconds: i32,
}

/// What one AssumeRole asks for.
struct Wish {
    name: String,
    policy: String,
    tags: Vec<(&'static str, String)>,
}

impl KeySource {
    /// A source on the given clients.
    pub(super) fn new(aws: &Aws, config: &BrokerConfig, place: Arc<Place>, calls: Arc<Gate>) -> Self {
        let role = config.role_arn.clone().map(|arn| Role {
            arn,
            external_id: config.external_id.clone(),
            seconds: config.key_seconds(),
        });
        Self {
            sts: aws.sts.clone(),
            credentials: aws.credentials.clone(),
            role,
            place,
            calls,
            own: Mutex::new(None),
            inventory: Mutex::new(None),
        }
    }

    /// Keys in the person's name that are good for this session only.
    pub(super) async fn for_session(
        &self,
        scope: &Scope,
        upstream_id: Option<&str>,
    ) -> Result<Keys, BrokerError> {
        let Some(role) = &self.role else {
            // Without a session of the role there is nothing to tag.
            return match scope.run_as {
                Some(_) => Err(BrokerError::Config("@run_as needs broker.role_arn".to_owned())),
                None => self.own().await,
            };
        };
        let run_as = scope.run_as.clone().map(|user| (RUN_AS, user));
        let wish = Wish {
            name: sanitised_name(&scope.principal.name),
            policy: self.place.session_policy(scope, upstream_id),
            tags: [
                ("postern-session", scope.session.to_string()),
                ("postern-principal", scope.principal.arn.clone()),
            ]
            .into_iter()
            .chain(run_as)
            .collect(),
        };
        self.assume(role, wish).await
    }

    /// Keys that can look at the machines and nothing else.
    pub(super) async fn for_inventory(&self) -> Result<Keys, BrokerError> {
        let Some(role) = &self.role else { return self.own().await };
        let mut slot = self.inventory.lock().await;
        if let Some(keys) = slot.as_ref().filter(|keys| keys.are_good()) {
            return Ok(keys.clone());
        }
        let wish =
            Wish { name: GATEWAY_NAME.to_owned(), policy: Place::inventory_policy(), tags: Vec::new() };
        let keys = self.assume(role, wish).await?;
        *slot = Some(keys.clone());
        Ok(keys)
    }

    /// The gateway's own keys, from environment, profile or metadata.
    async fn own(&self) -> Result<Keys, BrokerError> {
        let mut slot = self.own.lock().await;
        if let Some(keys) = slot.as_ref().filter(|keys| keys.are_good()) {
            return Ok(keys.clone());
        }
        let asked = async {
            let keys = self.credentials.provide_credentials().await;
            keys.map_err(|error| BrokerError::no_credentials(&error))
        };
        let keys = Keys(self.calls.run(Operation::Credentials, asked).await?);
        *slot = Some(keys.clone());
        Ok(keys)
    }

    async fn assume(&self, role: &Role, wish: Wish) -> Result<Keys, BrokerError> {
        let operation = Operation::AssumeRole;
        let own = self.own().await?;
        let mut call = self
            .sts
            .assume_role()
            .role_arn(&role.arn)
            .set_external_id(role.external_id.clone())
            .role_session_name(&wish.name)
            .source_identity(wish.name)
            .policy(wish.policy)
            .duration_seconds(role.seconds);
        for (key, value) in wish.tags {
            let tag = Tag::builder().key(key).value(tag_value(&value)).build();
            call = call.tags(tag.map_err(|_| BrokerError::Malformed { operation, what: "tag" })?);
        }
        let keys = aws_sdk_sts::config::Builder::new().credentials_provider(own.0);
        let asked = async {
            let answer = call.customize().config_override(keys).send().await;
            answer.map_err(|error| BrokerError::of(operation, &error))
        };
        let answer = self.calls.run(operation, asked).await?;
        let given = answer.credentials.ok_or(BrokerError::Malformed { operation, what: "Credentials" })?;
        let end = SystemTime::try_from(given.expiration)
            .map_err(|_| BrokerError::Malformed { operation, what: "Expiration" })?;
        Ok(Keys(Credentials::new(
            given.access_key_id,
            given.secret_access_key,
            Some(given.session_token),
            Some(end),
            "assumed-role",
        )))
    }
}

/// A value that STS takes as a tag: `[\p{L}\p{Z}\p{N}_.:/=+\-@]*`.
fn tag_value(text: &str) -> String {
    let fits =
        |c: char| c.is_alphanumeric() || matches!(c, ' ' | '_' | '.' | ':' | '/' | '=' | '+' | '-' | '@');
    text.chars().take(TAG_MAX).map(|c| if fits(c) { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_value_fits_sts() {
        assert_eq!(tag_value("arn:aws:sts::1:assumed-role/A,b/c\n"), "arn:aws:sts::1:assumed-role/A-b/c-");
        assert_eq!(tag_value(&"x".repeat(400)).len(), TAG_MAX);
    }
}
