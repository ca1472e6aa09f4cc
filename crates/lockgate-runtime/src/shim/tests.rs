//! Frames from a shim that lies, and requests put together and taken apart.

use super::batch::{agree, alike, has_rows, split};
use super::frame::{Frame, FrameError, answer, call, frame, read, signature};
use crate::session::RunError;
use lockgate_wire::{Data, Tensor};
use proptest::prelude::*;
use serde_json::{Value, json};

fn tensor(name: &str, shape: &[usize], data: Data) -> Tensor {
    Tensor::new(name, shape.to_vec(), data).unwrap()
}

fn texts(list: &[&str]) -> Data {
    Data::Bytes(list.iter().map(|t| (*t).to_owned()).collect())
}

/// What a shim that echoes would answer: the inputs of a call as outputs.
fn echo(sent: &[u8]) -> Vec<u8> {
    let Frame { mut head, raw } = read(&mut &sent[..]).unwrap();
    let inputs = head.remove("inputs").unwrap();
    frame(&json!({"id": head["id"], "outputs": inputs}), &raw)
}

fn outcome(bytes: &[u8]) -> Result<Result<Vec<Tensor>, RunError>, FrameError> {
    answer(read(&mut &bytes[..])?, 7)
}

fn why(bytes: &[u8]) -> String {
    outcome(bytes).unwrap_err().to_string()
}

#[test]
fn the_rows_of_several_requests_follow_one_another() {
    let a = [tensor("x", &[1, 2], Data::Fp32(vec![1.0, 2.0])), tensor("s", &[1], texts(&["é"]))];
    let b =
        [tensor("x", &[2, 2], Data::Fp32(vec![3.0, 4.0, 5.0, 6.0])), tensor("s", &[2], texts(&["", "z"]))];
    let outputs = outcome(&echo(&call(7, &[&a, &b]))).unwrap().unwrap();
    assert_eq!(outputs[0], tensor("x", &[3, 2], Data::Fp32(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])));
    assert_eq!(outputs[1], tensor("s", &[3], texts(&["é", "", "z"])));
    let pieces = split(outputs, &[1, 2]).unwrap();
    assert_eq!(pieces, [a.to_vec(), b.to_vec()]);
}

#[test]
fn what_breaks_the_protocol_is_an_error_that_says_what() {
    let output = |more: Value| {
        let mut item = json!({"name": "y", "datatype": "FP32", "shape": [1], "size": 4});
        item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        frame(&json!({"id": 7, "outputs": [item]}), &[0; 4])
    };
    assert!(outcome(&output(json!({}))).unwrap().is_ok());
    let cases = [
        (frame(&json!({"id": 8, "outputs": []}), &[]), "another call"),
        (frame(&json!({"outputs": []}), &[]), "another call"),
        (frame(&json!({"id": 7}), &[]), "no outputs"),
        (frame(&json!({"id": 7, "outputs": []}), &[]), "0 outputs"),
        (frame(&json!([7]), &[]), "no object"),
        (output(json!({"size": 5})), "larger than its frame"),
        (output(json!({"size": -1})), "no size"),
        (output(json!({"size": 3})), "3 bytes are no whole number of FP32"),
        (output(json!({"size": 0, "shape": [0]})), "behind the last output"),
        (output(json!({"shape": [-1]})), "not known"),
        (output(json!({"shape": [u64::MAX / 2, 4]})), "too large"),
        (output(json!({"shape": [1_u64 << 40]})), "elements"),
        (output(json!({"shape": "wide"})), "no shape"),
        (output(json!({"datatype": "COMPLEX"})), "unknown datatype"),
        (output(json!({"name": 3})), "no name"),
        (output(json!({"datatype": "BYTES"})), ""),
        (output(json!({"datatype": "BYTES", "shape": [1_u64 << 50]})), "elements has 1"),
        (b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), "does not begin"),
    ];
    for (bytes, words) in cases {
        if words.is_empty() {
            // Four zero bytes are one empty text.
            assert!(outcome(&bytes).unwrap().is_ok());
        } else {
            assert!(why(&bytes).contains(words), "`{}` lacks `{words}`", why(&bytes));
        }
    }
}

#[test]
fn a_frame_that_says_it_is_huge_takes_no_memory_for_it() {
    let mut bytes = frame(&json!({"id": 7}), &[]);
    bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(why(&bytes).contains("too large"));
    // As large as may be, but then it ends.
    bytes[8..16].copy_from_slice(&super::frame::MAX_RAW.to_le_bytes());
    assert!(why(&bytes).contains("cut off"));
    bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(why(&bytes).contains("too large"));
    assert!(matches!(outcome(&[]).unwrap_err(), FrameError::Ended));
}

#[test]
fn the_model_s_own_errors_come_without_paths_and_say_whose_fault_it_is() {
    let said = |kind: &str| {
        let error = json!({"kind": kind, "message": "no row in /home/alice/data.csv is fine"});
        outcome(&frame(&json!({"id": 7, "error": error}), &[])).unwrap().unwrap_err()
    };
    assert_eq!(said("input"), RunError::Input("no row in is fine".to_owned()));
    assert_eq!(said("model"), RunError::Model("no row in is fine".to_owned()));
    assert_eq!(said("whatever"), RunError::Model("no row in is fine".to_owned()));
}

#[test]
fn a_signature_names_inputs_and_outputs() {
    let spec = json!([{"name": "x", "datatype": "FP64", "shape": [-1, 3]}]);
    let hello = |head: Value| signature(&read(&mut &frame(&head, &[])[..]).unwrap());
    let (inputs, outputs) = hello(json!({"id": 0, "inputs": spec, "outputs": []})).unwrap().unwrap();
    assert_eq!(inputs[0].shape, [None, Some(3)]);
    assert!(outputs.is_empty());
    assert!(hello(json!({"id": 0, "inputs": spec})).is_err());
    let error = json!({"id": 0, "error": {"kind": "model", "message": "ModuleNotFoundError: no"}});
    assert!(hello(error).unwrap().unwrap_err().to_string().contains("ModuleNotFoundError"));
}

#[test]
fn only_requests_of_one_kind_go_together() {
    let x = |shape: &[usize], n| vec![tensor("x", shape, Data::Fp32(vec![0.0; n]))];
    assert!(alike(&x(&[1, 2], 2), &x(&[3, 2], 6)));
    assert!(!alike(&x(&[1, 2], 2), &x(&[1, 3], 3)));
    assert!(!alike(&x(&[1, 2], 2), &x(&[2], 2)));
    assert!(!alike(&x(&[], 1), &x(&[], 1)), "without rows");
    assert!(!alike(&x(&[2], 2), &[tensor("x", &[2], Data::Fp64(vec![0.0; 2]))]));
    assert!(!alike(&x(&[2], 2), &[tensor("z", &[2], Data::Fp32(vec![0.0; 2]))]));
    assert!(!has_rows(&x(&[2], 2), 1));
    assert_eq!(split(x(&[3], 3), &[1, 1]), None);
}

#[test]
fn answers_agree_but_for_the_last_digits() {
    let y = |v: f64| vec![tensor("y", &[1], Data::Fp64(vec![v]))];
    assert!(
        agree(&y(1.0), &y(1.000_000_1))
            && agree(&y(f64::NAN), &y(f64::NAN))
            && agree(&y(f64::INFINITY), &y(f64::INFINITY))
    );
    assert!(!agree(&y(1.0), &y(1.01)) && !agree(&y(1.0), &y(f64::NAN)));
    assert!(!agree(&[tensor("y", &[1], texts(&["a"]))], &[tensor("y", &[1], texts(&["b"]))]));
}

proptest! {
    /// Requests put together and taken apart again are the requests, whatever their numbers of rows.
    #[test]
    fn nobody_gets_another_s_rows(rows in prop::collection::vec(1_usize..5, 1..8), width in 1_usize..4) {
        let requests: Vec<Vec<Tensor>> = rows.iter().enumerate().map(|(who, n)| {
            let values = |k: usize| (0..n * k).map(|i| (who * 1000 + i) as i64).collect::<Vec<_>>();
            vec![
                tensor("a", &[*n, width], Data::Int64(values(width))),
                tensor("s", &[*n], Data::Bytes(values(1).iter().map(ToString::to_string).collect())),
            ]
        }).collect();
        let parts: Vec<&[Tensor]> = requests.iter().map(Vec::as_slice).collect();
        let outputs = outcome(&echo(&call(7, &parts))).unwrap().unwrap();
        prop_assert_eq!(split(outputs, &rows).unwrap(), requests);
    }

    /// No bytes make the reader panic.
    #[test]
    fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = outcome(&bytes);
    }

    /// A good frame that is cut off or has a byte changed is an answer or an error, and never more memory than it has bytes.
    #[test]
    fn a_damaged_frame_is_an_answer_or_an_error(at in 0_usize..200, by in 1_u8.., cut in any::<bool>()) {
        let a = [tensor("x", &[1, 2], Data::Fp32(vec![1.0, 2.0])), tensor("s", &[1], texts(&["text"]))];
        let mut bytes = echo(&call(7, &[&a]));
        let at = at % bytes.len();
        if cut {
            bytes.truncate(at);
            prop_assert!(outcome(&bytes).is_err());
        } else {
            bytes[at] = bytes[at].wrapping_add(by);
            let _ = outcome(&bytes);
        }
    }
}
