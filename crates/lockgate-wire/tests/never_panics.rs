//! Any bytes may come in; what is written reads back the same.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use half::{bf16, f16};
use lockgate_wire::oip::grpc::{parse_response, write_response as write_response_message};
use lockgate_wire::oip::{
    InferRequest, InferResponse, Parameter, RequestedOutput, ResponseHead, write_binary_response,
};
use lockgate_wire::{Data, Limits, Tensor, fuzz};
use proptest::prelude::*;

fn data() -> impl Strategy<Value = Data> {
    let len = 0..12usize;
    prop_oneof![
        prop::collection::vec(any::<bool>(), len.clone()).prop_map(Data::Bool),
        prop::collection::vec(any::<u8>(), len.clone()).prop_map(Data::Uint8),
        prop::collection::vec(any::<u16>(), len.clone()).prop_map(Data::Uint16),
        prop::collection::vec(any::<u32>(), len.clone()).prop_map(Data::Uint32),
        prop::collection::vec(any::<u64>(), len.clone()).prop_map(Data::Uint64),
        prop::collection::vec(any::<i8>(), len.clone()).prop_map(Data::Int8),
        prop::collection::vec(any::<i16>(), len.clone()).prop_map(Data::Int16),
        prop::collection::vec(any::<i32>(), len.clone()).prop_map(Data::Int32),
        prop::collection::vec(any::<i64>(), len.clone()).prop_map(Data::Int64),
        prop::collection::vec(any::<u16>(), len.clone())
            .prop_map(|v| Data::Fp16(v.into_iter().map(f16::from_bits).collect())),
        prop::collection::vec(any::<u16>(), len.clone())
            .prop_map(|v| Data::Bf16(v.into_iter().map(bf16::from_bits).collect())),
        prop::collection::vec(prop::num::f32::ANY, len.clone()).prop_map(Data::Fp32),
        prop::collection::vec(prop::num::f64::ANY, len.clone()).prop_map(Data::Fp64),
        prop::collection::vec(any::<String>(), len).prop_map(Data::Bytes),
    ]
}

fn tensors() -> impl Strategy<Value = Vec<Tensor>> {
    prop::collection::vec((any::<String>(), data()), 1..4).prop_map(|parts| {
        let named = parts.into_iter().enumerate();
        named
            .map(|(i, (name, data))| Tensor::new(format!("{i}{name}"), vec![data.len(), 1], data).unwrap())
            .collect()
    })
}

fn parameters() -> impl Strategy<Value = Vec<(String, Parameter)>> {
    let value = prop_oneof![
        any::<bool>().prop_map(Parameter::Bool),
        any::<i64>().prop_map(Parameter::Integer),
        any::<String>().prop_map(Parameter::Text),
        (prop::num::f64::NORMAL)
            .prop_filter("whole floats read as integers", |v| v.fract() != 0.0)
            .prop_map(Parameter::Float),
    ];
    prop::collection::btree_map(any::<String>(), value, 0..4).prop_map(|m| m.into_iter().collect())
}

/// Bits, so that NaN equals NaN (any NaN reads back as the one NaN).
fn bits(tensors: &[Tensor]) -> Vec<String> {
    tensors.iter().map(|t| format!("{t:?}")).collect()
}

proptest! {
    #[test]
    fn requests_and_responses_round_trip(
        id in any::<Option<String>>(), parameters in parameters(), inputs in tensors(), version in any::<Option<String>>(),
    ) {
        let request = InferRequest { id: id.clone(), parameters: parameters.clone(), inputs: inputs.clone(), outputs: vec![RequestedOutput { name: "y".to_owned(), binary: Some(true) }] };
        let read = InferRequest::parse(&request.to_bytes(), &Limits::default()).unwrap();
        prop_assert_eq!(bits(&read.inputs), bits(&inputs));
        prop_assert_eq!((&read.id, &read.parameters, &read.outputs), (&id, &parameters, &request.outputs));
        let response = InferResponse { model_name: "m".to_owned(), model_version: version, id, parameters, outputs: inputs };
        let read = InferResponse::parse(&response.to_bytes(), &Limits::default()).unwrap();
        prop_assert_eq!(bits(&read.outputs), bits(&response.outputs));
        prop_assert_eq!((&read.id, &read.parameters, &read.model_version), (&response.id, &response.parameters, &response.model_version));
    }

    #[test]
    fn outputs_in_binary_form_keep_every_bit(outputs in tensors(), which in any::<u8>()) {
        let is_binary = |t: &Tensor| which >> (t.name().as_bytes()[0] % 8) & 1 == 1;
        let head = ResponseHead { model_name: "m", ..ResponseHead::default() };
        let (body, json) = write_binary_response(&head, &outputs, is_binary);
        let read = InferResponse::parse_binary(&body, json, &Limits::default()).unwrap();
        prop_assert_eq!(bits(&read.outputs), bits(&outputs));
        for (read, written) in read.outputs.iter().zip(&outputs).filter(|(_, t)| is_binary(t)) {
            let bytes = |t: &Tensor| { let mut out = Vec::new(); lockgate_wire::oip::binary::append(&mut out, t.data()); out };
            prop_assert_eq!(bytes(read), bytes(written), "NaN payloads too");
        }
        for cut in [json.saturating_sub(1), json + 1] {
            prop_assert!(InferResponse::parse_binary(&body, cut, &Limits::default()).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(fuzz::read_everything(&bytes), Ok(()));
    }

    #[test]
    fn damaged_bodies_never_panic(at in 0usize..400, with in any::<u8>(), cut in 0usize..400, which in 0usize..4) {
        let bodies = [
            r#"{"id":"1","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1.5,-2e3],[NaN,Infinity]]}],"outputs":[{"name":"y"}]}"#,
            r#"{"dataframe_split":{"columns":["a","b"],"index":[0],"data":[[1,"x\u00e9\ud83d\ude00"],[null,true]]},"params":{}}"#,
            r#"{"model_name":"m","outputs":[{"name":"y","data":["a\n","b"],"shape":[2],"datatype":"BYTES"}]}"#,
            "a,b\n1,\"x,\"\"y\"\n,2\n",
        ];
        let mut bytes = bodies[which].as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] = with;
        prop_assert_eq!(fuzz::read_everything(&bytes), Ok(()));
        bytes.truncate(cut);
        prop_assert_eq!(fuzz::read_everything(&bytes), Ok(()));
    }

    #[test]
    fn damaged_messages_never_panic(outputs in tensors(), raw in any::<bool>(), at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let head = ResponseHead { model_name: "m", ..ResponseHead::default() };
        let mut message = write_response_message(&head, &outputs, raw);
        let read = parse_response(message.clone().into(), &Limits::default()).unwrap();
        prop_assert_eq!(bits(&read.outputs), bits(&outputs));
        let at = at.index(message.len());
        message[at] = with;
        prop_assert_eq!(fuzz::read_everything(&message), Ok(()));
        message.truncate(cut.index(message.len()));
        prop_assert_eq!(fuzz::read_everything(&message), Ok(()));
    }
}
