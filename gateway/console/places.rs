//! Where the output of a session lies, with links to AWS's own pages.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::Shared;
use super::answer::Answer;
use super::visitor::Visitor;
use crate::archive::Whereabouts;
use crate::front_door::noun;
use crate::session::SessionId;
use crate::shipper::LogStream;

/// `GET sessions/{id}/places`: log stream and archive, for who may replay it.
pub(super) async fn places(State(console): Shared, visitor: Visitor, Path(id): Path<String>) -> Answer {
    let places = console.lifecycle.places(&visitor.asker, &noun(SessionId::parse(&id))?).await?;
    let log = places.log.map(
        |log| json!({"group": log.group, "stream": log.stream, "region": log.region, "url": log_url(&log)}),
    );
    Ok(Json(json!({"log": log, "archive": places.archive.as_ref().map(archive_json)})))
}

fn archive_json(place: &Whereabouts) -> Value {
    match place {
        Whereabouts::File(path) => json!({"location": path.display().to_string(), "url": null}),
        Whereabouts::Object { bucket, key, region, endpoint_url } => {
            let url = is_of_aws(endpoint_url.as_deref()).then(|| {
                let (host, key) = (console_host(region), encoded(key));
                format!("https://{host}/s3/object/{}?region={region}&prefix={key}", encoded(bucket))
            });
            json!({"location": format!("s3://{bucket}/{key}"), "url": url})
        }
    }
}

/// The stream in CloudWatch's console; none if it is in no CloudWatch of AWS.
fn log_url(log: &LogStream) -> Option<String> {
    is_of_aws(log.endpoint_url.as_deref()).then(|| {
        let (host, region) = (console_host(&log.region), &log.region);
        let (group, stream) = (in_fragment(&log.group), in_fragment(&log.stream));
        format!(
            "https://{host}/cloudwatch/home?region={region}#logsV2:log-groups/log-group/{group}/log-events/{stream}"
        )
    })
}

/// The console of the region's partition.
fn console_host(region: &str) -> String {
    match region {
        _ if region.starts_with("cn-") => format!("{region}.console.amazonaws.cn"),
        _ if region.starts_with("us-gov-") => format!("{region}.console.amazonaws-us-gov.com"),
        _ if region.starts_with("eusc-") => format!("{region}.console.amazonaws-eusc.eu"),
        _ => format!("{region}.console.aws.amazon.com"),
    }
}

/// Whether AWS itself is reached there: at its usual or a private address.
fn is_of_aws(endpoint: Option<&str>) -> bool {
    let Some(endpoint) = endpoint else { return true };
    let host = endpoint.parse::<axum::http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
    let ends = [".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws"];
    host.is_some_and(|host| ends.iter().any(|end| host.ends_with(end)))
}

/// All but unreserved characters by their hex.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Encoded twice, with $ for the second %: so CloudWatch's pages read it.
fn in_fragment(text: &str) -> String {
    encoded(text).replace('%', "$25")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(region: &str, endpoint: Option<&str>) -> LogStream {
        LogStream {
            group: "/postern/sessions".into(),
            stream: "ada@example.com-abc".into(),
            region: region.into(),
            endpoint_url: endpoint.map(str::to_owned),
        }
    }

    #[test]
    fn a_log_stream_is_linked_as_cloudwatchs_pages_read_it() {
        assert_eq!(
            log_url(&stream("eu-west-1", None)).unwrap(),
            "https://eu-west-1.console.aws.amazon.com/cloudwatch/home?region=eu-west-1\
             #logsV2:log-groups/log-group/$252Fpostern$252Fsessions/log-events/ada$2540example.com-abc"
        );
        for (region, host) in [
            ("cn-north-1", "https://cn-north-1.console.amazonaws.cn/"),
            ("us-gov-west-1", "https://us-gov-west-1.console.amazonaws-us-gov.com/"),
            ("eusc-de-east-1", "https://eusc-de-east-1.console.amazonaws-eusc.eu/"),
        ] {
            assert!(log_url(&stream(region, None)).unwrap().starts_with(host), "{region}");
        }
    }

    #[test]
    fn what_is_in_no_aws_has_no_link_to_it() {
        let private = "https://vpce-1-2.logs.eu-west-1.vpce.amazonaws.com";
        assert!(log_url(&stream("eu-west-1", Some(private))).is_some());
        for other in
            ["http://127.0.0.1:4566", "https://logs.evil.example", "https://amazonaws.com.evil.example", "x"]
        {
            assert_eq!(log_url(&stream("eu-west-1", Some(other))), None, "{other}");
        }
    }

    #[test]
    fn an_archived_object_is_named_and_linked_and_a_file_is_named() {
        let object = Whereabouts::Object {
            bucket: "evidence".into(),
            key: "a b/recordings/x+y.cast.zst".into(),
            region: "us-east-1".into(),
            endpoint_url: None,
        };
        assert_eq!(
            archive_json(&object),
            json!({
                "location": "s3://evidence/a b/recordings/x+y.cast.zst",
                "url": "https://us-east-1.console.aws.amazon.com/s3/object/evidence?region=us-east-1\
                        &prefix=a%20b%2Frecordings%2Fx%2By.cast.zst",
            })
        );
        let file = archive_json(&Whereabouts::File("/srv/archive/recordings/x.cast.zst".into()));
        assert_eq!(file, json!({"location": "/srv/archive/recordings/x.cast.zst", "url": null}));
    }
}
