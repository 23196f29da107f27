//! From the claims of an ID token to a principal, as configured.

use time::OffsetDateTime;

use super::IdentityError;
use super::jwt::Claims;
use super::provider::OidcConfig;
use crate::session::{AuthMethod, Facts, Principal, printable};

/// Longest subject, characters, as OpenID Connect has it.
const SUBJECT_MAX: usize = 255;
/// Longest name of a person or a group, characters.
const NAME_MAX: usize = 128;
/// Longest address, characters, as SMTP has it.
const EMAIL_MAX: usize = 254;

/// Whom verified claims name, if they may use this gateway.
pub(super) fn principal_of(claims: &Claims, config: &OidcConfig) -> Result<Principal, IdentityError> {
    let subject = claims.text("sub").unwrap_or_default();
    // A subject is compared, shown and logged; what is not plain is no one.
    let plain = subject.bytes().all(|byte| byte.is_ascii_graphic());
    if subject.is_empty() || subject.len() > SUBJECT_MAX || !plain {
        return Err(IdentityError::Token("its subject is not one"));
    }
    let email = email(claims);
    let groups = groups(claims, config)?;
    admit(email, &groups, config)?;
    let known =
        |group: &&&str| config.groups.is_empty() || config.groups.iter().any(|known| fits(known, group));
    let groups = groups.iter().filter(known).map(|group| (*group).to_owned()).collect();
    let mfa =
        claims.texts("amr").map(|used| used.iter().any(|word| config.mfa.iter().any(|mfa| mfa == word)));
    let name = claims.text(&config.name_claim).or(email).unwrap_or(subject);
    let id = format!("{}|{subject}", config.issuer);
    let authenticated = claims.moment("auth_time").or_else(|| claims.moment("iat"));
    Ok(Principal {
        arn: id.clone(),
        id,
        account: String::new(),
        name: printable(name).chars().take(NAME_MAX).collect(),
        role: None,
        method: AuthMethod::Oidc,
        authenticated_at: authenticated.map_or(0, OffsetDateTime::unix_timestamp),
        facts: Facts { email: email.map(str::to_owned), groups, mfa, ..Facts::default() },
    })
}

/// The address, if the provider has verified that it is theirs.
fn email(claims: &Claims) -> Option<&str> {
    // Some providers write the flag as a text.
    let verified =
        claims.flag("email_verified") == Some(true) || claims.text("email_verified") == Some("true");
    let email = claims.text("email").filter(|_| verified)?;
    let plain = email.len() <= EMAIL_MAX && email.chars().all(|c| !c.is_control() && !c.is_whitespace());
    let (name, domain) = email.split_once('@')?;
    (plain && !name.is_empty() && !domain.is_empty() && !domain.contains('@')).then_some(email)
}

fn groups<'a>(claims: &'a Claims, config: &OidcConfig) -> Result<Vec<&'a str>, IdentityError> {
    if !claims.has(&config.groups_claim) {
        return Ok(Vec::new());
    }
    let groups = claims.texts(&config.groups_claim);
    let groups = groups.ok_or(IdentityError::Token("its groups are not a list of names"))?;
    let fits = |group: &&str| group.chars().count() <= NAME_MAX && printable(group) == **group;
    match groups.iter().all(fits) {
        true => Ok(groups),
        false => Err(IdentityError::Token("one of its groups has no name that is accepted")),
    }
}

fn admit(email: Option<&str>, groups: &[&str], config: &OidcConfig) -> Result<(), IdentityError> {
    let domain = email.and_then(|email| email.split_once('@')).map(|(_, domain)| domain);
    let ours =
        |domain: &str| config.allowed_domains.iter().any(|allowed| allowed.eq_ignore_ascii_case(domain));
    if !config.allowed_domains.is_empty() && !domain.is_some_and(ours) {
        return Err(IdentityError::PersonNotAllowed(
            "your verified address is of no domain that may sign in",
        ));
    }
    let named = |group: &&str| config.allowed_groups.iter().any(|allowed| fits(allowed, group));
    if !config.allowed_groups.is_empty() && !groups.iter().any(named) {
        return Err(IdentityError::PersonNotAllowed("you are in no group that may sign in"));
    }
    Ok(())
}

/// Whether a text is the pattern, with anything in place of each `*`.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|tail| {
            (0..=tail.len()).filter_map(|from| tail.get(from..)).any(|tail| fits(rest, tail))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("ops-*", "ops-eu", true),
            ("ops-*", "devops-eu", false),
            ("*", "", true),
            ("a*b*c", "abbc", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }
}
