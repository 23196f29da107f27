//! What goes back over HTTP: AWS JSON 1.1 or XML.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;
use uuid::Uuid;

use crate::error::ApiError;

/// The one kind of response there is.
pub(super) type Answer = Response<Full<Bytes>>;

/// The AWS JSON content type.
const JSON: &str = "application/x-amz-json-1.1";
/// The content type of the Query protocol.
const XML: &str = "text/xml";

/// An operation's result.
pub(super) fn json(body: &impl Serialize) -> Answer {
    whole(StatusCode::OK, JSON, serde_json::to_vec(body).unwrap_or_default())
}

/// An operation's error as the gateway knows it too.
pub(super) fn refusal(error: &ApiError) -> Answer {
    let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::BAD_REQUEST);
    failure(status, error.code.as_str(), &error.message)
}

/// An operation's error, named in `__type` as every SDK reads it.
pub(super) fn failure(status: StatusCode, code: &str, message: &str) -> Answer {
    #[derive(Serialize)]
    struct Body<'a> {
        #[serde(rename = "__type")]
        code: &'a str,
        #[serde(rename = "Message")]
        message: &'a str,
    }
    let body = Body { code, message };
    whole(status, JSON, serde_json::to_vec(&body).unwrap_or_default())
}

/// A Query protocol document.
pub(super) fn xml(status: StatusCode, body: String) -> Answer {
    whole(status, XML, body.into_bytes())
}

/// A bare status, for what is no AWS call.
pub(super) fn bare(status: StatusCode) -> Answer {
    whole(status, "text/plain", Vec::new())
}

fn whole(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(id) = HeaderValue::from_str(&Uuid::new_v4().to_string()) {
        headers.insert("x-amzn-requestid", id);
    }
    answer
}
