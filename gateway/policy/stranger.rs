//! Somebody of whom only a name is known: an ARN, or an address.

use crate::session::{AuthMethod, Facts, Principal};

/// Who such a name may stand for; None if it is neither.
///
/// The name is the id too, no second factor and no tag is known, and they
/// have proved who they are long ago.
pub fn stranger(name: &str) -> Option<Principal> {
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return None;
    }
    let nobody = nobody(name);
    let parts: Vec<&str> = name.splitn(6, ':').collect();
    if let ["arn", partition, _, _, account, resource] = parts.as_slice() {
        let name = resource.rsplit('/').next().unwrap_or(resource);
        let assumed = resource.strip_prefix("assumed-role/").and_then(|rest| rest.split('/').next());
        // A role stands for whoever assumes it.
        let is_role = resource.starts_with("role/");
        let arn = is_role.then(|| format!("arn:{partition}:sts::{account}:assumed-role/{name}/*"));
        return Some(Principal {
            account: (*account).to_owned(),
            name: name.to_owned(),
            role: if is_role { Some(name) } else { assumed }.map(str::to_owned),
            arn: arn.unwrap_or_else(|| nobody.arn.clone()),
            ..nobody
        });
    }
    let (own, domain) = name.split_once('@')?;
    let is_address = !own.is_empty() && !domain.is_empty() && !domain.contains('@');
    is_address.then(|| Principal {
        name: own.to_owned(),
        method: AuthMethod::Oidc,
        facts: Facts { email: Some(name.to_owned()), ..Facts::default() },
        ..nobody
    })
}

/// Somebody who goes by a name and of whom nothing else is known.
pub fn nobody(name: &str) -> Principal {
    Principal {
        id: name.to_owned(),
        arn: name.to_owned(),
        account: String::new(),
        name: name.to_owned(),
        role: None,
        method: AuthMethod::StsProof,
        authenticated_at: 0,
        facts: Facts::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_or_an_address_stands_for_somebody_and_nothing_else_does() {
        let role = stranger("arn:aws:sts::111122223333:assumed-role/OnCall/omar").unwrap();
        assert_eq!((role.name.as_str(), role.role.as_deref()), ("omar", Some("OnCall")));
        assert_eq!(role.role_arn().as_deref(), Some("arn:aws:iam::111122223333:role/OnCall"));
        let user = stranger("arn:aws:iam::111122223333:user/team/ada").unwrap();
        assert_eq!((user.name.as_str(), user.account.as_str()), ("ada", "111122223333"));
        let mail = stranger("ada@example.com").unwrap();
        assert_eq!((mail.name.as_str(), mail.facts.email.as_deref()), ("ada", Some("ada@example.com")));
        for nobody in
            ["", "ada", "@example.com", "ada@", "a@b@c", "arn:aws:iam", "a b@example.com", "a\u{7}@b"]
        {
            assert!(stranger(nobody).is_none(), "{nobody}");
        }
    }
}
