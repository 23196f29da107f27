//! Which policies can match? Those whose heads and first conditions hold.
//!
//! A policy is put under what it names: in its head, or in the part of its
//! conditions that Cedar evaluates first and that cannot err. If what it
//! names is not there, the policy is not satisfied and does not err, so it
//! needs not be evaluated.

use std::collections::HashMap;

use cedar_policy::{
    Entities, EntityUid, EvalResult, Policy as Cedar, PolicySet, PrincipalConstraint, Request,
    ResourceConstraint,
};
use miette::Diagnostic;
use serde_json::Value;

use super::explain::conditions;
use super::slices::Judgement;

/// What an entity is in, or a tag of the resource; none if nothing is named.
type Name<T> = Option<T>;
/// A tag's key and value.
type Tag = (String, String);

/// What names the same of the machine, by the tag that it wants.
type ByTag = HashMap<Name<Tag>, PolicySet>;

/// Policies by what they name.
#[derive(Debug, Default)]
pub(super) struct Places {
    by_name: HashMap<Name<EntityUid>, HashMap<Name<EntityUid>, ByTag>>,
    /// The same policies with what their heads alone name.
    heads: Vec<(Head, Cedar)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Head {
    principal: Name<EntityUid>,
    resource: Name<EntityUid>,
}

impl Places {
    pub fn new<'a>(policies: impl Iterator<Item = &'a Cedar>) -> Result<Self, Box<dyn Diagnostic>> {
        let mut places = Self::default();
        for policy in policies {
            let head = Head::of(policy);
            let (Head { principal, resource }, tag) = head.clone().narrowed(policy);
            let by_resource = places.by_name.entry(principal).or_default();
            let set = by_resource.entry(resource).or_default().entry(tag).or_default();
            set.add(policy.clone())?;
            places.heads.push((head, policy.clone()));
        }
        Ok(places)
    }

    /// Evaluates what can match: the same as evaluating all of them.
    pub fn judge(&self, request: &Request, entities: &Entities) -> Judgement {
        self.found(request, entities).into_iter().fold(Judgement::default(), |so_far, policies| {
            so_far.and(Judgement::of(policies, request, entities))
        })
    }

    /// Those whose heads hold, whatever their conditions name.
    pub fn in_scope(&self, request: &Request, entities: &Entities) -> Vec<&Cedar> {
        let (principals, resources) = names(request, entities);
        let holds = |head: &Head| principals.contains(&head.principal) && resources.contains(&head.resource);
        self.heads.iter().filter(|(head, _)| holds(head)).map(|(_, policy)| policy).collect()
    }

    /// The sets of those that can match.
    fn found(&self, request: &Request, entities: &Entities) -> Vec<&PolicySet> {
        let (principals, resources) = names(request, entities);
        let tags = tags(request.resource(), entities);
        let by_principal = principals.iter().filter_map(|principal| self.by_name.get(principal));
        let by_both = by_principal.flat_map(|by| resources.iter().filter_map(|resource| by.get(resource)));
        by_both.flat_map(|by| tags.iter().filter_map(|tag| by.get(tag))).collect()
    }
}

/// What policies may name to hold for the request's two entities.
fn names(request: &Request, entities: &Entities) -> (Vec<Name<EntityUid>>, Vec<Name<EntityUid>>) {
    let of = |uid: Option<&EntityUid>| {
        let mut names = vec![None];
        if let Some(uid) = uid {
            names.push(Some(uid.clone()));
            names.extend(entities.ancestors(uid).into_iter().flatten().cloned().map(Some));
        }
        names
    };
    (of(request.principal()), of(request.resource()))
}

/// The tags that policies may name to hold for a resource, or none.
fn tags(resource: Option<&EntityUid>, entities: &Entities) -> Vec<Name<Tag>> {
    let mut tags = vec![None];
    let text = |(key, value): (&str, Result<EvalResult, _>)| match value {
        Ok(EvalResult::String(value)) => Some(Some((key.to_owned(), value))),
        _ => None,
    };
    if let Some(entity) = resource.and_then(|uid| entities.get(uid)) {
        tags.extend(entity.tags().filter_map(text));
    }
    tags
}

impl Head {
    fn of(policy: &Cedar) -> Self {
        use {PrincipalConstraint as P, ResourceConstraint as R};
        let principal = match policy.principal_constraint() {
            P::Any | P::Is(_) => None,
            P::In(uid) | P::Eq(uid) | P::IsIn(_, uid) => Some(uid),
        };
        let resource = match policy.resource_constraint() {
            R::Any | R::Is(_) => None,
            R::In(uid) | R::Eq(uid) | R::IsIn(_, uid) => Some(uid),
        };
        Self { principal, resource }
    }

    /// With what the first conditions name that the head does not.
    ///
    /// They are looked at in the order in which Cedar evaluates them, up to
    /// the first that may err: behind it the policy may err, and that counts.
    fn narrowed(mut self, policy: &Cedar) -> (Self, Name<Tag>) {
        let (mut tag, mut keys) = (None, Vec::new());
        let Ok(json) = policy.to_json() else { return (self, tag) };
        for (part, wanted) in conditions(&json) {
            match Part::of(part) {
                Some(Part::In(variable, uid)) => {
                    let name = if variable == "principal" { &mut self.principal } else { &mut self.resource };
                    if wanted && name.is_none() {
                        *name = Some(uid);
                    }
                }
                Some(Part::HasTag(key)) if wanted => keys.push(key),
                // A tag that is not there cannot be got; then Cedar errs.
                Some(Part::TagIs(key, value)) if keys.contains(&key) => {
                    if wanted && tag.is_none() {
                        tag = Some((key.to_owned(), value.to_owned()));
                    }
                }
                Some(Part::HasTag(_) | Part::Harmless) => {}
                Some(Part::TagIs(..)) | None => break,
            }
        }
        (self, tag)
    }
}

/// A part of a condition that cannot err.
enum Part<'a> {
    /// The principal or the resource is this, or in it.
    In(&'a str, EntityUid),
    /// The resource has a tag of this key.
    HasTag(&'a str),
    /// Its tag of this key has this value; errs if it has no such tag.
    TagIs(&'a str, &'a str),
    /// Something else that is there or not.
    Harmless,
}

impl<'a> Part<'a> {
    /// Reads a part in Cedar's JSON; none if it may err.
    fn of(part: &'a Value) -> Option<Self> {
        let (operator, sides) = part.as_object()?.iter().next()?;
        let left = sides.get("left");
        let right = || sides.get("right")?.get("Value");
        let variable = left.and_then(|left| left.get("Var")).and_then(Value::as_str);
        match (operator.as_str(), variable) {
            ("in" | "==", Some(variable @ ("principal" | "resource"))) => {
                Some(Self::In(variable, EntityUid::from_json(right()?.clone()).ok()?))
            }
            ("hasTag", Some("resource")) => Some(Self::HasTag(right()?.as_str()?)),
            ("has", Some("principal" | "resource" | "context")) => Some(Self::Harmless),
            // What it is to be in may err.
            ("is", Some("principal" | "resource")) if sides.get("in").is_none() => Some(Self::Harmless),
            ("==", None) => {
                let got = left?.get("getTag")?;
                let of_resource = got.get("left")?.get("Var")?.as_str()? == "resource";
                let key = got.get("right")?.get("Value")?.as_str()?;
                of_resource.then_some(Self::TagIs(key, right()?.as_str()?))
            }
            _ => None,
        }
    }
}
