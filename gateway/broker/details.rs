//! What SSM tells of a machine beside what policy goes by, clean and short.

use aws_sdk_ssm::primitives::DateTime;
use aws_sdk_ssm::types::{InstanceAggregatedAssociationOverview, InstanceInformation, PingStatus};

use crate::session::{Associations, Details, printable};

/// Longest name of a machine in the API's model, characters.
const NAME_MAX: usize = 255;
/// Longest of all its other texts, characters.
const WORD_MAX: usize = 128;
/// States that associations are counted by; AWS has a handful.
const STATES_MAX: usize = 16;
/// The year 10000, in ms: an SDK cannot read a moment from there on.
const TOO_LATE_MS: u64 = 253_402_300_800_000;

/// Reads all of it that a caller may be shown.
pub(super) fn details(info: &InstanceInformation) -> Details {
    Details {
        inactive: info.ping_status() == Some(&PingStatus::Inactive),
        last_ping_ms: moment(info.last_ping_date_time()),
        latest_agent: info.is_latest_version(),
        platform_name: text(info.platform_name(), WORD_MAX),
        platform_version: text(info.platform_version(), WORD_MAX),
        activation_id: text(info.activation_id(), WORD_MAX),
        iam_role: text(info.iam_role(), WORD_MAX),
        registered_ms: moment(info.registration_date()),
        name: text(info.name(), NAME_MAX),
        computer_name: text(info.computer_name(), NAME_MAX),
        ip_address: text(info.ip_address(), WORD_MAX),
        association_status: text(info.association_status(), WORD_MAX),
        associated_ms: moment(info.last_association_execution_date()),
        associated_well_ms: moment(info.last_successful_association_execution_date()),
        associations: info.association_overview().map(|overview| Box::new(associations(overview))),
        source_id: text(info.source_id(), WORD_MAX),
        source_type: text(info.source_type().map(|kind| kind.as_str()), WORD_MAX),
    }
}

fn associations(overview: &InstanceAggregatedAssociationOverview) -> Associations {
    let counts = overview.instance_association_status_aggregated_count();
    let mut counts: Vec<_> = counts.into_iter().flatten().collect();
    counts.sort_unstable();
    let counts = counts.into_iter().take(STATES_MAX);
    let counts = counts.filter_map(|(state, count)| Some((text(Some(state), WORD_MAX)?, *count)));
    Associations { status: text(overview.detailed_status(), WORD_MAX), counts: counts.collect() }
}

fn text(said: Option<&str>, most: usize) -> Option<Box<str>> {
    let shown: String = printable(said?).chars().take(most).collect();
    (!shown.is_empty()).then(|| shown.into_boxed_str())
}

fn moment(said: Option<&DateTime>) -> Option<u64> {
    let ms = said?.to_millis().ok().and_then(|ms| u64::try_from(ms).ok());
    ms.filter(|ms| *ms < TOO_LATE_MS)
}
