//! People whom no file describes: by their ARN, or by what policies name.

use std::collections::BTreeSet;

use cedar_policy::{EntityUid, PrincipalConstraint};
use serde_json::{Value, json};

use super::company::{Company, add_groups_of};
use super::groups::{EMAIL, IDP};
use super::situation::uid_text;
use super::stranger::{nobody, stranger};
use super::{Action, Policy};
use crate::session::{AuthMethod, Facts, Principal};

impl Company {
    /// Adds somebody by ARN or address, with the groups that `groups.toml` gives them.
    ///
    /// The ARN of a role stands for whoever assumes it, `idp:` and `email:`
    /// for whoever the identity provider says that of. None if it is neither.
    pub fn add_person(&mut self, policy: &Policy, who: &str) -> Option<String> {
        let person = stand_in(who)?;
        let mut entity = entity_of(&person);
        add_groups_of(&mut entity, &person, policy);
        self.entities.push(entity);
        Some(uid_text("Postern::User", who))
    }

    /// Adds somebody for everybody whom only policies and groups name.
    ///
    /// That is one for each member of a group, and one for each user, role
    /// and account that a policy wants somebody to be, to be in or to be of.
    pub fn add_named(&mut self, policy: &Policy) -> Vec<String> {
        let mut added = Vec::new();
        for who in policy.groups.members().into_iter().chain(literals(policy)) {
            let email = who.strip_prefix(EMAIL).map(str::to_owned);
            // Two of that name are there already, too.
            let known = !matches!(self.find("User", &who), Ok(None));
            if !known && !email.is_some_and(|email| self.has_email(&email)) {
                added.extend(self.add_person(policy, &who).or_else(|| Some(self.add_user(&who))));
            }
        }
        added
    }

    fn add_user(&mut self, id: &str) -> String {
        self.entities.push(entity_of(&nobody(id)));
        uid_text("Postern::User", id)
    }

    fn has_email(&self, email: &str) -> bool {
        let of = |entity: &Value| entity.get("attrs")?.get("email")?.as_str().map(str::to_lowercase);
        self.entities.iter().any(|entity| of(entity).as_deref() == Some(email))
    }
}

/// Whom a member of a group, an ARN or an address stands for.
fn stand_in(who: &str) -> Option<Principal> {
    let of_provider = |name: &str, facts| Principal {
        name: name.to_owned(),
        method: AuthMethod::Oidc,
        facts,
        ..nobody(who)
    };
    if let Some(group) = who.strip_prefix(IDP) {
        return Some(of_provider(group, Facts { groups: vec![group.to_owned()], ..Facts::default() }));
    }
    if let Some(email) = who.strip_prefix(EMAIL) {
        return Some(of_provider(email, Facts { email: Some(email.to_owned()), ..Facts::default() }));
    }
    stranger(who)
}

fn entity_of(person: &Principal) -> Value {
    let account = Some(&person.account).filter(|account| !account.is_empty());
    let account = account.map(|account| json!({"type": "Postern::Account", "id": account}));
    let role = person.role_arn().map(|role| json!({"type": "Postern::Role", "id": role}));
    let mut attrs = json!({
        "arn": person.arn, "name": person.name, "account": person.account, "method": person.method,
        "authenticatedAt": "1970-01-01T00:00:00Z",
    });
    if let (Some(email), Some(attrs)) = (&person.facts.email, attrs.as_object_mut()) {
        attrs.insert("email".to_owned(), email.clone().into());
    }
    let parents: Vec<Value> = account.into_iter().chain(role).collect();
    json!({
        "uid": {"type": "Postern::User", "id": person.id}, "attrs": attrs, "parents": parents, "tags": {},
    })
}

/// Users, roles and accounts of policies, each as somebody is named.
fn literals(policy: &Policy) -> BTreeSet<String> {
    let own = Action::ALL.into_iter().filter_map(|action| policy.slices.of(action));
    let all = own.flat_map(|slice| slice.policies.policies()).chain(policy.jitna.policies().policies());
    let mut found = BTreeSet::new();
    for cedar in all {
        // A machine may be in an account too: only the principal's counts.
        let scope = match cedar.principal_constraint() {
            PrincipalConstraint::Any | PrincipalConstraint::Is(_) => None,
            PrincipalConstraint::In(uid)
            | PrincipalConstraint::Eq(uid)
            | PrincipalConstraint::IsIn(_, uid) => Some(uid),
        };
        let named = |uid: &EntityUid| {
            let id = uid.id().unescaped().to_owned();
            match uid.type_name().basename() {
                "User" | "Role" => Some(id),
                _ => None,
            }
        };
        let account = |uid: &EntityUid| {
            let is = uid.type_name().basename() == "Account";
            is.then(|| format!("arn:aws:iam::{}:*", uid.id().unescaped()))
        };
        found.extend(scope.iter().filter_map(account));
        found.extend(cedar.entity_literals().iter().filter_map(named));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(cedar: &str, groups: &str) -> Policy {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.cedar"), cedar).unwrap();
        std::fs::write(dir.path().join("groups.toml"), groups).unwrap();
        Policy::load(dir.path()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn user(id: &str, name: &str) -> Value {
        entity_of(&Principal { name: name.to_owned(), ..nobody(id) })
    }

    /// Who of the people that nobody described may open a shell.
    fn reach(policy: &Policy) -> Vec<String> {
        let mut company = Company::new(Vec::new(), policy);
        let people = company.add_named(policy);
        let machine = company.add_machine("i-0a", "1", "r", &Default::default());
        let how = crate::policy::Circumstances::default();
        let may = |who: &String| {
            let situation = company.situation(who, Action::StartShell, &machine, &how);
            policy.reach(&situation).unwrap().is_some()
        };
        let mut found: Vec<String> = people.into_iter().filter(may).collect();
        found.sort();
        found
    }

    #[test]
    fn members_by_idp_group_address_and_role_stand_for_somebody() {
        let groups = "[groups]\ndevs = [\"idp:platform\", \"idp:ops-*\", \"email:Ada@example.com\", \
                      \"email:*@example.org\", \"arn:aws:iam::1:role/Dev\", \"arn:aws:iam::1:user/bob\"]\n\
                      others = [\"idp:guests\"]\n";
        let policy =
            policy("@id(\"a\") permit (principal in Postern::Group::\"devs\", action, resource);", groups);
        let names = [
            "arn:aws:iam::1:role/Dev",
            "arn:aws:iam::1:user/bob",
            "email:*@example.org",
            "email:ada@example.com",
            "idp:ops-*",
            "idp:platform",
        ];
        assert_eq!(reach(&policy), names.map(|name| uid_text("Postern::User", name)));
    }

    #[test]
    fn whoever_a_policy_names_stands_for_somebody() {
        let cedar = "@id(\"r\") permit (principal in Postern::Role::\"arn:aws:iam::1:role/Dev\", action, resource);
             @id(\"a\") permit (principal in Postern::Account::\"2\", action, resource);
             @id(\"u\") permit (principal == Postern::User::\"AIDA1\", action, resource);
             @id(\"c\") permit (principal, action, resource)
               when { principal in Postern::Role::\"arn:aws:iam::1:role/Ops\" };
             @id(\"m\") permit (principal in Postern::Group::\"x\", action, resource in Postern::Account::\"3\");";
        let names = ["AIDA1", "arn:aws:iam::1:role/Dev", "arn:aws:iam::1:role/Ops", "arn:aws:iam::2:*"];
        assert_eq!(reach(&policy(cedar, "")), names.map(|name| uid_text("Postern::User", name)));
    }

    #[test]
    fn somebody_of_the_file_is_not_there_twice() {
        let policy = policy("", "[groups]\ndevs = [\"email:ada@example.com\"]\n");
        let mut ada = user("https://idp|1", "ada");
        ada["attrs"]["email"] = "Ada@Example.com".into();
        let mut company = Company::new(vec![ada], &policy);
        assert_eq!(company.add_named(&policy), [""; 0]);
    }

    #[test]
    fn several_of_one_name_are_refused_and_an_id_goes_before_a_name() {
        let policy = policy("", "");
        let people = [("AIDA1", "ada"), ("AIDA2", "ada"), ("ada", "bob"), ("AIDA3", "eve"), ("AIDA4", "eve")];
        let people = people.map(|(id, name)| user(id, name));
        let company = Company::new(people.to_vec(), &policy);
        assert_eq!(company.find("User", "ada").unwrap().as_deref(), Some("Postern::User::\"ada\""));
        assert_eq!(company.find("User", "bob").unwrap().as_deref(), Some("Postern::User::\"ada\""));
        let several = company.find("User", "eve").unwrap_err().to_string();
        assert!(several.contains("AIDA3") && several.contains("AIDA4"), "{several}");
        assert_eq!(company.find("User", "nobody"), Ok(None));
    }
}
