use super::message::{InferTensor, InferTensorContents, ModelInferRequest, RequestedOutputTensor};
use super::*;
use crate::json::Limits;
use crate::oip::ResponseHead;
use crate::tensor::{Data, Tensor};
use bytes::Bytes;
use half::f16;
use prost::Message as _;

fn input(name: &str, datatype: &str, shape: &[i64], contents: Option<InferTensorContents>) -> InferTensor {
    let (name, datatype) = (name.to_owned(), datatype.to_owned());
    InferTensor { name, datatype, shape: shape.to_vec(), contents, ..InferTensor::default() }
}

fn parse(message: &ModelInferRequest) -> Result<GrpcRequest, crate::WireError> {
    GrpcRequest::parse(message.encode_to_vec().into(), &Limits::default())
}

fn raw(inputs: Vec<InferTensor>, contents: &[&'static [u8]]) -> ModelInferRequest {
    let raw_input_contents = contents.iter().map(|c| Bytes::from_static(c)).collect();
    ModelInferRequest {
        model_name: "m".to_owned(),
        inputs,
        raw_input_contents,
        ..ModelInferRequest::default()
    }
}

#[test]
fn typed_and_raw_contents_read_as_the_same() {
    let contents = InferTensorContents { int_contents: vec![-1, 2], ..InferTensorContents::default() };
    let typed = parse(&raw(vec![input("x", "INT16", &[2], Some(contents))], &[])).unwrap();
    let bytes = parse(&raw(vec![input("x", "INT16", &[2], None)], &[&[0xff, 0xff, 2, 0]])).unwrap();
    assert_eq!(typed.request, bytes.request);
    assert!(bytes.raw && !typed.raw);
    assert_eq!(bytes.request.inputs[0].data(), &Data::Int16(vec![-1, 2]));
}

#[test]
fn the_model_is_found_without_decoding() {
    let message = ModelInferRequest { model_version: "3".to_owned(), ..raw(vec![], &[b"much"]) };
    assert_eq!(model_of(&message.encode_to_vec()).unwrap(), ("m", "3"));
    let many = raw(vec![InferTensor::default(); 70_000], &[]).encode_to_vec();
    assert_eq!(model_of(&many).unwrap_err().status, 413);
    for bad in
        [&[0x0a, 5, b'm'][..], &[0x0a, 1, 0xff], &[0x0b], &[0xff; 11], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff]]
    {
        assert_eq!(model_of(bad).unwrap_err().status, 400, "{bad:?}");
    }
}

#[test]
fn hostile_messages_are_refused_with_the_field() {
    let floats =
        |values: &[f32]| InferTensorContents { fp32_contents: values.to_vec(), ..Default::default() };
    let output = RequestedOutputTensor { name: "y".to_owned(), ..Default::default() };
    for (message, want) in [
        (raw(vec![], &[]), "inputs: there must be at least one"),
        (
            raw(vec![input("x", "FP32", &[2], Some(floats(&[1.0])))], &[]),
            "inputs[0].fp32_contents: the shape [2]",
        ),
        (raw(vec![input("x", "FP32", &[-1], None)], &[&[]]), "inputs[0].shape: a shape has"),
        (raw(vec![input("x", "FP32", &[1; 9], None)], &[&[0; 4]]), "inputs[0].shape: a shape has"),
        (
            raw(vec![input("x", "FP32", &[i64::MAX, 4], None)], &[&[]]),
            "inputs[0].shape: the shape holds more",
        ),
        (raw(vec![input("x", "FP32", &[2], None)], &[&[0; 7]]), "takes 8 bytes, but there are 7"),
        (raw(vec![input("x", "FP32", &[1], None)], &[&[0; 4], &[0; 4]]), "raw_input_contents: there are 2"),
        (raw(vec![input("x", "FP32", &[1], Some(floats(&[1.0])))], &[&[0; 4]]), "it takes one of them"),
        (raw(vec![input("x", "FP16", &[1], Some(floats(&[1.0])))], &[]), "no typed contents"),
        (raw(vec![input("x", "TEXT", &[1], None)], &[&[0; 4]]), "inputs[0].datatype: unknown datatype"),
        (raw(vec![input("x", "INT8", &[1], None); 2], &[&[0], &[0]]), "`x` is given twice"),
        (
            ModelInferRequest {
                outputs: vec![output; 2],
                ..raw(vec![input("x", "INT8", &[1], None)], &[&[0]])
            },
            "outputs[1]: an output is asked for twice",
        ),
    ] {
        let error = parse(&message).unwrap_err();
        assert!(error.text().contains(want) && error.status == 400, "{error}");
    }
    let small = InferTensorContents { uint_contents: vec![300], ..Default::default() };
    let error = parse(&raw(vec![input("x", "UINT8", &[1], Some(small))], &[])).unwrap_err();
    assert!(error.text().contains("300 is out of the range of UINT8"), "{error}");
}

#[test]
fn few_bytes_do_not_become_a_large_structure() {
    let limits = Limits { max_elements: 1000, max_names: 100, ..Limits::default() };
    let texts = InferTensorContents { bytes_contents: vec![Bytes::new(); 2000], ..Default::default() };
    let numbers = InferTensorContents { uint64_contents: vec![0; 2000], ..Default::default() };
    for message in [
        raw(vec![input("x", "BYTES", &[2000], Some(texts))], &[]),
        raw(vec![input("x", "UINT64", &[2000], Some(numbers))], &[]),
        raw(vec![InferTensor::default(); 1000], &[]),
        raw(vec![input("x", "INT8", &[0; 1000], None)], &[&[]]),
    ] {
        let error = GrpcRequest::parse(message.encode_to_vec().into(), &limits).unwrap_err();
        assert!(matches!(error.status, 400 | 413), "{error}");
    }
}

#[test]
fn answers_mirror_the_form_and_halves_are_always_raw() {
    let head = ResponseHead { model_name: "m", model_version: Some("1"), id: Some("i"), parameters: &[] };
    let outputs = [
        Tensor::new("y", vec![2], Data::Fp32(vec![1.5, f32::NAN])).unwrap(),
        Tensor::new("s", vec![1], Data::Bytes(vec!["é".to_owned()])).unwrap(),
    ];
    for raw in [true, false] {
        let read = parse_response(write_response(&head, &outputs, raw).into(), &Limits::default()).unwrap();
        assert_eq!(format!("{:?}", read.outputs), format!("{outputs:?}"));
        assert_eq!((read.model_version.as_deref(), read.id.as_deref()), (Some("1"), Some("i")));
    }
    let halves = [Tensor::new("h", vec![1], Data::Fp16(vec![f16::from_bits(0x7e01)])).unwrap()];
    let read = parse_response(write_response(&head, &halves, false).into(), &Limits::default()).unwrap();
    assert!(matches!(read.outputs[0].data(), Data::Fp16(v) if v[0].to_bits() == 0x7e01));
}
