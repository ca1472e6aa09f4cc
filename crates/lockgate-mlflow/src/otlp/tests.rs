//! Requests of both forms.

use super::*;
use std::io::Write as _;

const JSON: &str = r#"{"resourceSpans": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "s"}}]},
  "scopeSpans": [{"spans": [{"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174",
  "parentSpanId": "eee19b7ec3c1b173", "name": "n", "startTimeUnixNano": "1544712660000000000",
  "endTimeUnixNano": 1544712661000000000, "status": {"code": 2, "message": "m"},
  "attributes": [{"key": "a", "value": {"arrayValue": {"values": [{"intValue": "7"}, {"doubleValue": 0.5}, {}]}}},
  {"key": "m", "value": {"kvlistValue": {"values": [{"key": "z", "value": {"boolValue": true}}]}}}],
  "events": [{"name": "e", "timeUnixNano": "1"}],
  "links": [{"traceId": "5b8efff798038103d269b633813fc60d", "spanId": "eee19b7ec3c1b175"}]}]}]}]}"#;

fn group_of_json() -> SpanGroup {
    groups(JSON.as_bytes(), Form::Json).unwrap().remove(0)
}

#[test]
fn json_is_read() {
    let group = group_of_json();
    assert_eq!(group.resource, [("service.name".to_owned(), Tree::Text("s".to_owned()))]);
    let span = &group.spans[0];
    assert_eq!(span.trace, "5b8efff798038103d269b633813fc60c");
    assert_eq!(
        (span.span_id.as_str(), span.parent_id.as_deref()),
        ("eee19b7ec3c1b174", Some("eee19b7ec3c1b173"))
    );
    assert_eq!((span.start_ns, span.end_ns), (1_544_712_660_000_000_000, 1_544_712_661_000_000_000));
    assert_eq!((span.status, span.message.as_str()), (SpanStatus::Error, "m"));
    let written: Vec<String> =
        span.attributes.iter().map(|(key, value)| format!("{key}={}", value.dump())).collect();
    assert_eq!(written, ["a=[7, 0.5, null]", r#"m={"z": true}"#]);
    assert_eq!((span.events[0].name.as_str(), span.links[0].span_id.as_str()), ("e", "eee19b7ec3c1b175"));
}

#[test]
fn protobuf_says_the_same_also_where_it_is_compressed() {
    let bytes = json::request(JSON.as_bytes()).unwrap().encode_to_vec();
    let packed = |gzip: bool| {
        let level = flate2::Compression::default();
        if gzip {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), level);
            writer.write_all(&bytes).unwrap();
            writer.finish().unwrap()
        } else {
            let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), level);
            writer.write_all(&bytes).unwrap();
            writer.finish().unwrap()
        }
    };
    let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    raw.write_all(&bytes).unwrap();
    let all = [
        (bytes.clone(), None),
        (packed(true), Some("gzip")),
        (packed(false), Some("deflate")),
        (raw.finish().unwrap(), Some("Deflate")),
    ];
    for (body, encoding) in all {
        let body = decompressed(body, encoding).unwrap();
        assert_eq!(groups(&body, Form::Protobuf).unwrap(), [group_of_json()], "{encoding:?}");
    }
}

#[test]
fn what_is_no_request_is_refused() {
    let status = |body: &[u8], form| groups(body, form).unwrap_err().status;
    assert_eq!(status(b"\xff\xff", Form::Protobuf), 400);
    assert_eq!(status(b"", Form::Protobuf), 400);
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"resourceSpans": 1}"#,
        r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "zz"}]}]}]}"#,
    ] {
        assert_eq!(status(bad.as_bytes(), Form::Json), 400, "{bad}");
    }
    let without_id = r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "n"}]}]}]}"#;
    assert_eq!(status(without_id.as_bytes(), Form::Json), 422);
    assert_eq!(decompressed(b"x".to_vec(), Some("gzip")).unwrap_err().status, 400);
    assert_eq!(decompressed(b"x".to_vec(), Some("br")).unwrap_err().status, 400);
    assert!(
        Form::of(Some("application/json; charset=utf-8")).is_ok() && Form::of(Some("text/plain")).is_err()
    );
    assert_eq!(id(&[0; 16], 8).as_deref(), Some("0000000000000000"));
    assert_eq!(id(&[1; 9], 8), None);
}
