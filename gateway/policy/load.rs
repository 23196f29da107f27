//! A policy folder becomes a policy: read, parsed, strictly validated.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use cedar_policy::{
    Entities, EntityUid, PolicyId, PolicySet, Schema, ValidationMode, ValidationWarning, Validator,
};
use ring::digest;

use super::entities::Vocabulary;
use super::groups::Groups;
use super::jitna::{self, Jitna};
use super::lint::lint;
use super::obligations::Annotations;
use super::probe::probe;
use super::problem::{File, PolicyError, Problem};
use super::slices::Slices;
use super::{Action, Policy, Source};

/// The schema of this version, used if the folder has none.
pub(super) const SCHEMA: &str = include_str!("../../policies/schema.cedarschema");
const SCHEMA_FILE: &str = "schema.cedarschema";
const GROUPS_FILE: &str = "groups.toml";
/// Largest policy file, in bytes: nobody reviews more than that.
const FILE_MAX: u64 = 1 << 20;
/// Most files in a folder: a wrong path must not read a whole disk.
const FILES_MAX: usize = 10_000;
/// Deepest folder, in levels: a link that points upwards ends here.
const DEPTH_MAX: usize = 8;
/// Longest policy id, in characters: ids stand in every denial.
const ID_MAX: usize = 64;

/// Reads and checks a folder; nothing of it is used unless all of it is right.
pub(super) fn load(dir: &Path) -> Result<Policy, PolicyError> {
    build(&files(dir)?).map_err(PolicyError::Invalid)
}

/// The same, with what is odd in it but not wrong.
pub(super) fn load_and_lint(
    dir: &Path,
    now: time::OffsetDateTime,
) -> Result<(Policy, Vec<Problem>), PolicyError> {
    let files = files(dir)?;
    let policy = build(&files).map_err(PolicyError::Invalid)?;
    let found = lint(&policy, &files, now);
    Ok((policy, found))
}

fn files(dir: &Path) -> Result<Vec<File>, PolicyError> {
    let mut files = Vec::new();
    read_folder(dir, "", 0, &mut files)?;
    if !files.iter().any(|file| file.name == SCHEMA_FILE) {
        files.push(File { name: SCHEMA_FILE.to_owned(), text: SCHEMA.to_owned() });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// The names of a folder's policy files, below the folder, in order.
pub(super) fn policy_files(dir: &Path) -> Result<Vec<String>, PolicyError> {
    let mut files = Vec::new();
    read_folder(dir, "", 0, &mut files)?;
    let mut names: Vec<_> = files.into_iter().map(|file| file.name).collect();
    names.retain(|name| name.ends_with(".cedar"));
    names.sort();
    Ok(names)
}

fn unreadable(path: &Path, why: impl ToString) -> PolicyError {
    PolicyError::Unreadable { path: path.to_owned(), why: why.to_string() }
}

/// Names beginning with a dot are left out: editors and mounted volumes
/// keep their own copies there.
fn read_folder(dir: &Path, prefix: &str, depth: usize, files: &mut Vec<File>) -> Result<(), PolicyError> {
    if depth > DEPTH_MAX {
        return Err(unreadable(dir, format!("it is more than {DEPTH_MAX} folders deep")));
    }
    for entry in fs::read_dir(dir).map_err(|error| unreadable(dir, error))? {
        let path = entry.map_err(|error| unreadable(dir, error))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(unreadable(&path, "its name is not UTF-8"));
        };
        if name.starts_with('.') {
            continue;
        }
        let kind = fs::metadata(&path).map_err(|error| unreadable(&path, error))?;
        let full_name = format!("{prefix}{name}");
        if kind.is_dir() {
            read_folder(&path, &format!("{full_name}/"), depth + 1, files)?;
        } else if name.ends_with(".cedar") || name == GROUPS_FILE || full_name == SCHEMA_FILE {
            if kind.len() > FILE_MAX || files.len() >= FILES_MAX {
                return Err(unreadable(&path, format!("more than {FILE_MAX} bytes or {FILES_MAX} files")));
            }
            let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
            files.push(File { name: full_name, text });
        }
    }
    Ok(())
}

fn build(files: &[File]) -> Result<Policy, Vec<Problem>> {
    let schema_file = files.iter().find(|file| file.name == SCHEMA_FILE);
    let Some(schema_file) = schema_file else { return Err(Vec::new()) };
    let failed = |inner: &dyn miette::Diagnostic| vec![Problem::of(schema_file, inner)];
    let (schema, _) = Schema::from_cedarschema_str(&schema_file.text).map_err(|e| failed(&e))?;
    let vocabulary = Vocabulary::new().map_err(|e| failed(&*e))?;
    let actions = schema.action_entities().map_err(|e| failed(&e))?;
    probe(schema_file, &schema, &vocabulary, &actions)?;

    let aws = jitna::schema().map_err(|e| failed(&*e))?;
    let starts = Action::ALL.into_iter().filter(|action| action.starts_session());
    let starts = starts.map(|action| vocabulary.action(action)).collect();
    let mut reader = Reader {
        validator: Validator::new(schema.clone()),
        aws_validator: Validator::new(aws.clone()),
        policies: PolicySet::new(),
        aws_policies: PolicySet::new(),
        actions: actions.clone(),
        starts,
        annotations: HashMap::new(),
        sources: BTreeMap::new(),
        groups: Groups::default(),
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    for file in files {
        if file.name.ends_with(".cedar") {
            reader.read_policies(file);
        } else if file.name != SCHEMA_FILE
            && let Err(problems) = reader.groups.add(file)
        {
            reader.problems.extend(problems);
        }
    }
    if let Err(problems) = reader.groups.settle(files) {
        reader.problems.extend(problems);
    }
    if !reader.problems.is_empty() {
        reader.problems.sort_by_key(Problem::order);
        return Err(reader.problems);
    }
    let slices = Slices::new(&reader.policies, &actions, &vocabulary).map_err(|e| failed(&*e))?;
    let jitna = Jitna::new(reader.aws_policies, aws).map_err(|e| failed(&*e))?;
    Ok(Policy {
        digest: digest_of(files),
        count: reader.policies.num_of_policies() + jitna.policies().num_of_policies(),
        slices,
        jitna,
        annotations: reader.annotations,
        sources: reader.sources,
        warnings: reader.warnings,
        groups: reader.groups,
        vocabulary,
        schema,
    })
}

/// What has been read so far.
struct Reader {
    validator: Validator,
    policies: PolicySet,
    aws_validator: Validator,
    aws_policies: PolicySet,
    /// The schema's actions, and those of them that open a session.
    actions: Entities,
    starts: Vec<EntityUid>,
    annotations: HashMap<String, Annotations>,
    /// Where each id was met first, and how it reads there.
    sources: BTreeMap<String, Source>,
    groups: Groups,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Reader {
    /// Takes one file in; what is wrong with it is kept with file and line.
    fn read_policies(&mut self, file: &File) {
        let set: PolicySet = match file.text.parse() {
            Ok(set) => set,
            Err(errors) => return self.problems.push(Problem::of(file, &errors)),
        };
        let parts = |aws: bool| set.policies().filter(move |policy| jitna::is_policy(policy) == aws);
        for aws in [false, true] {
            match PolicySet::from_policies(parts(aws).cloned()) {
                Ok(part) => self.validate(file, &part, aws),
                Err(error) => self.problems.push(Problem::of(file, &error)),
            }
        }
        for template in set.templates() {
            let help = "write the principal and the resource in place of ?principal and ?resource";
            let span = template.as_ref().loc().map_or((0..0).into(), |loc| loc.span);
            self.problems.push(Problem::at(file, span, "a template is not a policy").help(help));
        }
        let mut policies: Vec<_> = set.policies().collect();
        policies.sort_by_key(|policy| policy.as_ref().loc().map(|loc| loc.start()));
        for policy in policies {
            self.add(file, policy);
        }
    }

    /// A warning that means the author meant something else is an error.
    fn validate(&mut self, file: &File, set: &PolicySet, aws: bool) {
        let validator = if aws { &self.aws_validator } else { &self.validator };
        let result = validator.validate(set, ValidationMode::Strict);
        self.problems.extend(result.validation_errors().map(|error| Problem::of(file, error)));
        for warning in result.validation_warnings() {
            let problem = Problem::of(file, warning);
            match warning {
                ValidationWarning::ImpossiblePolicy(_)
                | ValidationWarning::BidiCharsInString(_)
                | ValidationWarning::BidiCharsInIdentifier(_) => self.problems.push(problem),
                _ => self.warnings.push(problem),
            }
        }
    }

    fn add(&mut self, file: &File, policy: &cedar_policy::Policy) {
        let span = policy.as_ref().loc().map_or((0..0).into(), |loc| loc.span);
        let head = (span.offset(), 0);
        let line = file.text.get(..span.offset()).map_or(1, |before| before.matches('\n').count() + 1);
        let aws = jitna::is_policy(policy);
        let id = match policy.annotation("id") {
            Some(id) if valid_id(id) => id.to_owned(),
            // AWS's have none, and are taken as they are.
            None if aws => placed_id(&file.name, line),
            _ => {
                let help =
                    format!("put @id(\"prod-needs-oncall\") before it: 1 to {ID_MAX} of a-z A-Z 0-9 . _ / -");
                return self
                    .problems
                    .push(Problem::at(file, head, "this policy has no valid @id").help(help));
            }
        };
        if let Some(first) = self.sources.get(&id) {
            let why = format!("@id(\"{id}\") is taken");
            let help = format!(
                "it is the policy of {}:{}; every policy needs an id of its own",
                first.file, first.line
            );
            return self.problems.push(Problem::at(file, head, why).help(help));
        }
        let text = file.text.get(span.offset()..span.offset() + span.len()).unwrap_or_default();
        self.sources.insert(id.clone(), Source { file: file.name.clone(), line, text: text.to_owned() });
        let annotations = self.read_annotations(file, policy);
        self.annotations.insert(id.clone(), annotations);
        let set = if aws { &mut self.aws_policies } else { &mut self.policies };
        if let Err(error) = set.add(policy.new_id(PolicyId::new(id))) {
            self.problems.push(Problem::of(file, &error));
        }
    }

    /// Whether an action that a policy is about opens a session.
    fn starts_session(&self, policy: &cedar_policy::Policy) -> bool {
        use cedar_policy::ActionConstraint::{Any, Eq, In};
        let starts = |named: &EntityUid| {
            jitna::is_aws(named)
                || self.starts.iter().any(|start| start == named || self.actions.is_ancestor_of(named, start))
        };
        match policy.action_constraint() {
            Any => true,
            Eq(named) => starts(&named),
            In(named) => named.iter().any(starts),
        }
    }

    fn read_annotations(&mut self, file: &File, policy: &cedar_policy::Policy) -> Annotations {
        let mut annotations = Annotations::default();
        for (key, annotation) in policy.as_ref().annotations() {
            let span = annotation.loc.as_ref().map_or((0..0).into(), |loc| loc.span);
            if let Err(refusal) = annotations.take(key.as_ref(), &annotation.val) {
                self.problems.push(Problem::at(file, span, refusal.why).help(refusal.help));
            } else if annotations.obliges && policy.effect() == cedar_policy::Effect::Forbid {
                let why = format!("@{key} is for a permit, and this is a forbid");
                self.problems
                    .push(Problem::at(file, span, why).help("move it to the permits it is meant for"));
                annotations.obliges = false;
            } else if annotations.obliges && !self.starts_session(policy) {
                let why = format!("@{key} is for sessions, and this permits none to start");
                let help = "move it to the permits of startShell and the like, which begin the session";
                self.problems.push(Problem::at(file, span, why).help(help));
                annotations.obliges = false;
            }
        }
        annotations
    }
}

/// The id of a policy that has none: where it is.
fn placed_id(file: &str, line: usize) -> String {
    let plain = |c: char| if valid_id(&c.to_string()) { c } else { '-' };
    let place = format!("{}-{line}", file.chars().map(plain).collect::<String>());
    place.get(place.len().saturating_sub(ID_MAX)..).unwrap_or_default().to_owned()
}

fn valid_id(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b'-');
    !id.is_empty() && id.len() <= ID_MAX && id.bytes().all(plain)
}

/// SHA-256 over names and contents, each after its length.
fn digest_of(files: &[File]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in files.iter().flat_map(|file| [&file.name, &file.text]) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    data_encoding::HEXLOWER.encode(context.finish().as_ref())
}
