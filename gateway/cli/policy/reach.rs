//! `postern policy list` and `who`: who can reach what, by the folder alone.

use std::process::ExitCode;

use super::super::output::{print_json, print_line, print_table};
use super::asked::{How, Machine, Where, company, person};
use super::explain::sentence;
use crate::policy::{Action, Circumstances, Company, Policy, Reach};
use crate::session::printable;

/// What `postern policy list` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    postern policy list --principal ada --entities policies/tests/entities/company.json\n\n\
    It looks at every machine of the entities. What takes something that the person can do alone, such\n\
    as a reason, MFA, another network or another time, is listed with it.")]
pub struct ListArgs {
    #[command(flatten)]
    place: Where,
    /// Who: an ARN, or an id or name of the entities.
    #[arg(long, value_name = "WHO")]
    principal: String,
    #[command(flatten)]
    how: How,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What `postern policy who` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    postern policy who --target web-prod --entities policies/tests/entities/company.json\n  \
    postern policy who --target i-0123456789abcdef0 --tag env=prod --account 111122223333\n\n\
    It looks at every person of the entities, at every member that groups.toml names and at every\n\
    user, role and account that a policy names; what has a * stands for everybody whom it matches.\n\
    Nobody else is looked at: whoever is let in by attributes or tags alone has to be in the entities.\n\
    A machine that is in no file is in each person's own account, or in that of --account.")]
pub struct WhoArgs {
    #[command(flatten)]
    place: Where,
    /// The machine: an id, or a name of the entities.
    #[arg(long, visible_alias = "resource", value_name = "MACHINE")]
    target: String,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    how: How,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Lists what somebody can reach.
pub fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let policy = Policy::load(&args.place.dir)?;
    let mut company = company(&policy, args.place.entities.as_deref())?;
    let who = person(&mut company, &policy, &args.principal)?;
    let machines = company.of_kind("Instance");
    anyhow::ensure!(!machines.is_empty(), "there are no machines to look at: give them with --entities FILE");
    let mut rows = Vec::new();
    for machine in &machines {
        rows.extend(ways(&policy, &company, (&who, machine), &args.how.circumstances())?);
    }
    let none = format!("{} reaches none of {} machines", args.principal, machines.len());
    print(&rows, args.json, ("MACHINE", |reach| &reach.resource), &none)
}

/// Lists who can reach a machine.
pub fn who(args: &WhoArgs) -> anyhow::Result<ExitCode> {
    let policy = Policy::load(&args.place.dir)?;
    let mut company = company(&policy, args.place.entities.as_deref())?;
    let mut people = company.of_kind("User");
    people.extend(company.add_named(&policy));
    let in_file = company.find("Instance", &args.target)?.is_some();
    let mut target = args.machine.find(&mut company, &args.target, "")?;
    let mut rows = Vec::new();
    for person in &people {
        if !in_file {
            // It is in the person's own account as long as nobody says where.
            let account = company.attribute(person, "account").unwrap_or_default().to_owned();
            target = args.machine.add_anew(&mut company, &args.target, &account);
        }
        rows.extend(ways(&policy, &company, (person, &target), &args.how.circumstances())?);
    }
    let none = format!("none of {} people reaches {}", people.len(), args.target);
    print(&rows, args.json, ("WHO", |reach| &reach.principal), &none)
}

/// Every way in which somebody may open a session there.
fn ways(
    policy: &Policy,
    company: &Company,
    (who, what): (&str, &str),
    how: &Circumstances,
) -> anyhow::Result<Vec<Reach>> {
    let mut found = Vec::new();
    for action in Action::ALL.into_iter().filter(|action| action.starts_session() && how.fit(*action)) {
        let situation = company.situation(who, action, what, how);
        let reach = policy.reach(&situation).map_err(|why| anyhow::anyhow!(printable(&why)))?;
        found.extend(reach);
    }
    Ok(found)
}

fn print(
    rows: &[Reach],
    json: bool,
    (heading, subject): (&'static str, fn(&Reach) -> &String),
    none: &str,
) -> anyhow::Result<ExitCode> {
    if json {
        print_json(&rows)?;
    } else if rows.is_empty() {
        print_line(&printable(none))?;
    } else {
        let cells: Vec<[String; 4]> = rows
            .iter()
            .map(|reach| {
                let with = if reach.with.is_empty() { "-".to_owned() } else { sentence(&reach.with) };
                [short(subject(reach)), reach.action.clone(), reach.policies.join(" "), with]
            })
            .collect();
        print_table([heading, "ACTION", "POLICIES", "IF YOU"], &cells)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The id of an entity's name.
fn short(uid: &str) -> String {
    let id = uid.split_once("::\"").map_or(uid, |(_, id)| id);
    id.trim_end_matches('"').to_owned()
}
