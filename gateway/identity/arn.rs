//! From what STS says to a principal: the ARN, taken apart strictly.

use time::OffsetDateTime;

use super::IdentityError;
use super::sts_answer::StsAnswer;
use crate::session::{AuthMethod, Facts, Principal};

/// Longest name of a role, user or session, characters; IAM's own is 64.
const NAME_MAX: usize = 128;
/// Longest ARN taken, characters: a user with the longest path is 640.
const ARN_MAX: usize = 700;

/// Makes a principal of an answer; ARN, account and id must agree.
pub(super) fn principal(
    answer: &StsAnswer,
    partition: &str,
    now: OffsetDateTime,
) -> Result<Principal, IdentityError> {
    let wrong = |why| IdentityError::StsAnswer(why);
    let account = answer.account.as_str();
    if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong("the account is not twelve digits"));
    }
    let whole = answer.arn.len() <= ARN_MAX && answer.arn.bytes().all(|byte| byte.is_ascii_graphic());
    let parts: Vec<&str> = answer.arn.split(':').collect();
    let ["arn", arn_partition, service, "", arn_account, resource] = parts.as_slice() else {
        return Err(wrong("the ARN has not six parts"));
    };
    if !whole || *arn_partition != partition || *arn_account != account {
        return Err(wrong("the ARN is of another partition or account"));
    }
    let Who { name, role } = who(service, resource, account, &answer.user_id)
        .ok_or_else(|| wrong("the ARN and the user id are not those of an IAM identity"))?;
    Ok(Principal {
        id: answer.user_id.clone(),
        arn: answer.arn.clone(),
        account: account.to_owned(),
        name: name.to_owned(),
        role: role.map(str::to_owned),
        method: AuthMethod::StsProof,
        authenticated_at: now.unix_timestamp(),
        facts: Facts::default(),
    })
}

/// The names in an ARN's resource.
struct Who<'a> {
    name: &'a str,
    role: Option<&'a str>,
}

fn who<'a>(service: &str, resource: &'a str, account: &str, user_id: &str) -> Option<Who<'a>> {
    let segments: Vec<&str> = resource.split('/').collect();
    match (service, segments.as_slice()) {
        ("iam", ["root"]) => (user_id == account).then_some(Who { name: "root", role: None }),
        ("iam", ["user", path @ .., name]) => {
            let fits = is_name(name) && path.iter().all(|step| !step.is_empty());
            (fits && is_unique_id(user_id, "AIDA")).then_some(Who { name, role: None })
        }
        ("sts", ["assumed-role", role, name]) => {
            let (id, session) = user_id.split_once(':')?;
            let fits = is_name(role) && is_name(name) && session == *name && is_unique_id(id, "AROA");
            fits.then_some(Who { name, role: Some(role) })
        }
        ("sts", ["federated-user", name]) => {
            let of_account = user_id.strip_prefix(account).and_then(|rest| rest.strip_prefix(':'));
            (is_name(name) && of_account == Some(*name)).then_some(Who { name, role: None })
        }
        _ => None,
    }
}

/// A user or a role, as the subject of a token names it.
pub(super) struct Named<'a> {
    pub(super) partition: &'a str,
    pub(super) name: &'a str,
    pub(super) is_role: bool,
}

/// Reads the ARN of a user or a role of this account, with or without path.
pub(super) fn iam<'a>(arn: &'a str, account: &str) -> Option<Named<'a>> {
    let whole = arn.len() <= ARN_MAX && arn.bytes().all(|byte| byte.is_ascii_graphic());
    let parts: Vec<&str> = arn.split(':').collect();
    let ["arn", partition, "iam", "", of, resource] = parts.as_slice() else { return None };
    let segments: Vec<&str> = resource.split('/').collect();
    let [kind @ ("user" | "role"), path @ .., name] = segments.as_slice() else { return None };
    let known = matches!(*partition, "aws" | "aws-cn" | "aws-us-gov");
    let fits = whole && known && *of == account && is_name(name) && path.iter().all(|step| !step.is_empty());
    fits.then_some(Named { partition, name, is_role: *kind == "role" })
}

/// IAM's own rule for names: letters, digits and `+ = , . @ _ -`.
pub(super) fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(fits)
}

/// A unique id of IAM: its prefix, then capitals and digits.
fn is_unique_id(id: &str, prefix: &str) -> bool {
    let rest = id.strip_prefix(prefix).unwrap_or_default();
    (1..=124).contains(&rest.len())
        && rest.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arn: &str, user_id: &str) -> Result<Principal, IdentityError> {
        let answer = StsAnswer {
            arn: arn.to_owned(),
            user_id: user_id.to_owned(),
            account: "111122223333".to_owned(),
            request_id: String::new(),
        };
        principal(&answer, "aws", OffsetDateTime::UNIX_EPOCH)
    }

    #[test]
    fn each_kind_of_identity_has_its_name_and_role() {
        for (arn, id, name, role) in [
            (
                "arn:aws:sts::111122223333:assumed-role/Admin/alice@example.com",
                "AROAX1:alice@example.com",
                "alice@example.com",
                Some("Admin"),
            ),
            (
                "arn:aws:sts::111122223333:assumed-role/AWSReservedSSO_Ops_0123456789abcdef/bob",
                "AROAX2:bob",
                "bob",
                Some("AWSReservedSSO_Ops_0123456789abcdef"),
            ),
            ("arn:aws:iam::111122223333:user/carol", "AIDAX3", "carol", None),
            ("arn:aws:iam::111122223333:user/team/ops/dave", "AIDAX4", "dave", None),
            ("arn:aws:iam::111122223333:root", "111122223333", "root", None),
            ("arn:aws:sts::111122223333:federated-user/erin", "111122223333:erin", "erin", None),
        ] {
            let principal = parse(arn, id).unwrap_or_else(|error| panic!("{arn}: {error}"));
            assert_eq!((principal.name.as_str(), principal.role.as_deref()), (name, role));
            assert_eq!((principal.id.as_str(), principal.arn.as_str()), (id, arn));
        }
    }

    #[test]
    fn whatever_does_not_agree_or_is_not_an_identity_is_refused() {
        for (arn, id) in [
            ("arn:aws:sts::999999999999:assumed-role/Admin/alice", "AROAX1:alice"),
            ("arn:aws-cn:sts::111122223333:assumed-role/Admin/alice", "AROAX1:alice"),
            ("arn:aws:sts:us-east-1:111122223333:assumed-role/Admin/alice", "AROAX1:alice"),
            ("arn:aws:sts::111122223333:assumed-role/Admin/alice", "AROAX1:bob"),
            ("arn:aws:sts::111122223333:assumed-role/Admin/alice", "AIDAX1:alice"),
            ("arn:aws:sts::111122223333:assumed-role/Admin/alice", "AROAX1"),
            ("arn:aws:sts::111122223333:assumed-role/Admin/alice/more", "AROAX1:alice/more"),
            ("arn:aws:sts::111122223333:assumed-role//alice", "AROAX1:alice"),
            ("arn:aws:sts::111122223333:assumed-role/Admin/al ice", "AROAX1:al ice"),
            ("arn:aws:sts::111122223333:assumed-role/Admin/al\u{1b}ice", "AROAX1:al\u{1b}ice"),
            ("arn:aws:iam::111122223333:role/Admin", "AROAX1"),
            ("arn:aws:iam::111122223333:user/", "AIDAX1"),
            ("arn:aws:iam::111122223333:user/alice", "AROAX1"),
            ("arn:aws:iam::111122223333:root", "999999999999"),
            ("arn:aws:sts::111122223333:federated-user/erin", "999999999999:erin"),
            ("arn:aws:iam::111122223333:root:more", "111122223333"),
            ("", ""),
        ] {
            assert!(parse(arn, id).is_err(), "{arn} {id} was accepted");
        }
    }
}
