//! What the prediction log says of bodies: always text that can be read, whatever form they were sent in.
//!
//! Packed bodies are unpacked, and tensors in binary form are written as the protocol's JSON. A body that can't be read so is
//! described by a statement, `{"not_shown": "…"}`.

use bytes::Bytes;
use lockgate_gateway::{BodyForm, Protocol};
use lockgate_wire::oip::InferRequest;
use lockgate_wire::oip::grpc::GrpcRequest;
use lockgate_wire::{Limits, WireError};
use std::borrow::Cow;

/// How large a body may be once it is unpacked.
const UNPACKED_MAX: usize = 1 << 20;

/// How much text of one body is kept. A row of the log can't be larger than two of these and its other columns.
const SHOWN_MAX: usize = 256 << 10;

/// How a statement begins.
const STATEMENT: &str = "{\"not_shown\":";

/// What a body is to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response,
}

/// A body as text.
pub(crate) fn text(body: &Bytes, form: BodyForm, protocol: Protocol, kind: Kind) -> String {
    let read = match kind {
        Kind::Request => request(body, form, protocol),
        Kind::Response => form.answer(body, protocol, UNPACKED_MAX).map(Vec::from),
    };
    let readable = read.map_err(|e| e.text());
    let readable = readable.and_then(|b| String::from_utf8(b).map_err(|_| "it is no text".to_owned()));
    let short = |text: String| match text.len() {
        length if length > SHOWN_MAX => Err(format!("it is {length} bytes of text")),
        _ => Ok(text),
    };
    readable.and_then(short).unwrap_or_else(|why| {
        let what = format!("a body of {} bytes that can't be shown as text: {why}", body.len());
        format!("{STATEMENT}{}}}", serde_json::Value::from(what))
    })
}

fn request(body: &Bytes, form: BodyForm, protocol: Protocol) -> Result<Vec<u8>, WireError> {
    let limits = Limits { max_elements: UNPACKED_MAX, ..Limits::default() };
    let plain: Cow<'_, [u8]> = match form.encoding {
        Some(encoding) => encoding.unpack(body, UNPACKED_MAX)?.into(),
        None => Cow::Borrowed(body),
    };
    match (protocol, form.json) {
        (Protocol::Grpc, _) => {
            let message = Bytes::from(plain.into_owned());
            GrpcRequest::parse(message, &limits).map(|r| r.request.to_bytes())
        }
        (Protocol::Mlflow | Protocol::Tfs | Protocol::Openai, _) | (Protocol::Oip, None) => {
            Ok(plain.into_owned())
        }
        (Protocol::Oip, Some(0)) => Err(WireError::bad("its tensor is sent without a name or a shape")),
        (Protocol::Oip, Some(json)) => {
            InferRequest::parse_binary(&plain, json, &limits).map(|r| r.to_bytes())
        }
    }
}

/// Whether a recorded text is the body itself, and not a statement about it.
pub(crate) fn is_shown(text: &str) -> bool {
    !text.starts_with(STATEMENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockgate_wire::Encoding;

    const PLAIN: &str = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1.5]}]}"#;

    fn request(body: &[u8], form: BodyForm) -> String {
        text(&Bytes::copy_from_slice(body), form, Protocol::Oip, Kind::Request)
    }

    #[test]
    fn packed_and_binary_bodies_read_as_the_plain_one_does() {
        let json =
            r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}}]}"#;
        let binary = [json.as_bytes(), &1.5_f32.to_le_bytes()].concat();
        let form = BodyForm { json: Some(json.len()), encoding: None };
        assert_eq!(request(PLAIN.as_bytes(), BodyForm::default()), PLAIN);
        assert_eq!(request(&binary, form), PLAIN);
        let packed = Encoding::Gzip.pack(&binary).unwrap();
        assert_eq!(request(&packed, BodyForm { encoding: Some(Encoding::Gzip), ..form }), PLAIN);
    }

    #[test]
    fn messages_of_grpc_read_as_the_plain_body_does() {
        let tensor = b"\x0a\x01x\x12\x04FP32\x1a\x01\x01";
        let head = [&b"\x0a\x01m\x2a"[..], &[u8::try_from(tensor.len()).unwrap()], tensor].concat();
        let message = Bytes::from([&head[..], b"\x3a\x04", &1.5_f32.to_le_bytes()].concat());
        assert_eq!(text(&message, BodyForm::default(), Protocol::Grpc, Kind::Request), PLAIN);
        let outputs = InferRequest::parse(PLAIN.as_bytes(), &Limits::default()).unwrap().inputs;
        let head = lockgate_wire::oip::ResponseHead { model_name: "m", ..Default::default() };
        let answer = lockgate_wire::oip::grpc::write_response(&head, &outputs, true);
        let said = text(&answer.into(), BodyForm::default(), Protocol::Grpc, Kind::Response);
        assert_eq!(said, PLAIN.replace("{\"inputs\"", "{\"model_name\":\"m\",\"outputs\""));
        let refused = Bytes::from_static(b"{\"error\":\"no\"}");
        assert_eq!(text(&refused, BodyForm::default(), Protocol::Grpc, Kind::Response), "{\"error\":\"no\"}");
    }

    #[test]
    fn what_can_not_be_read_is_stated_and_never_garbage() {
        let bomb = Encoding::Gzip.pack(&vec![0; 2 * UNPACKED_MAX]).unwrap();
        let long = Encoding::Gzip.pack(&vec![b' '; SHOWN_MAX + 1]).unwrap();
        for (body, form) in [
            (&[0_u8, 159, 146, 150][..], BodyForm::default()),
            (&[0, 0, 128, 63], BodyForm { json: Some(0), encoding: None }),
            (b"{}", BodyForm { json: Some(9), encoding: None }),
            (b"no gzip", BodyForm { json: None, encoding: Some(Encoding::Gzip) }),
            (&bomb, BodyForm { json: None, encoding: Some(Encoding::Gzip) }),
            (&long, BodyForm { json: None, encoding: Some(Encoding::Gzip) }),
        ] {
            let said = request(body, form);
            assert!(!is_shown(&said) && said.len() < 300, "{said}");
            let value: serde_json::Value = serde_json::from_str(&said).unwrap();
            assert!(value["not_shown"].as_str().unwrap().contains(&format!("{} bytes", body.len())));
        }
        assert!(is_shown(PLAIN));
    }
}
