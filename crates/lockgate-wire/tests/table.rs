//! Columns to tensors, through the bodies that carry them.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use lockgate_wire::mlflow::{ContentType, Invocation};
use lockgate_wire::oip::InputSpec;
use lockgate_wire::table::{ColumnKind, ColumnSpec, MISSING, Plan};
use lockgate_wire::{Data, Datatype, Limits, Tensor, WireError};

fn column(name: &str, kind: ColumnKind) -> ColumnSpec {
    ColumnSpec { name: name.to_owned(), kind, required: true }
}

fn input(name: &str, datatype: Datatype, shape: &[Option<usize>]) -> InputSpec {
    InputSpec { name: name.to_owned(), datatype, shape: shape.to_vec() }
}

fn send(plan: &Plan, body: &str) -> Result<Vec<Tensor>, WireError> {
    let kind = if body.starts_with('{') { ContentType::Json } else { ContentType::Csv };
    plan.tensors(&Invocation::parse(body.as_bytes(), kind, &Limits::default())?.payload)
}

fn matrix() -> Plan {
    let columns = [
        column("age", ColumnKind::Long),
        column("fare", ColumnKind::Double),
        column("vip", ColumnKind::Boolean),
    ];
    Plan::new(&columns, &[input("X", Datatype::Fp32, &[None, Some(3)])]).unwrap()
}

fn per_column() -> Plan {
    let columns = [
        column("age", ColumnKind::Long),
        column("city", ColumnKind::String),
        column("fare", ColumnKind::Float),
    ];
    let graph = [
        input("fare", Datatype::Fp32, &[None, Some(1)]),
        input("age", Datatype::Int64, &[None]),
        input("city", Datatype::Bytes, &[None, Some(1)]),
    ];
    Plan::new(&columns, &graph).unwrap()
}

#[test]
fn every_form_of_the_same_rows_gives_the_same_matrix() {
    let plan = matrix();
    let want = vec![Tensor::new("X", vec![2, 3], Data::Fp32(vec![30.0, 7.5, 1.0, 41.0, 8.0, 0.0])).unwrap()];
    for body in [
        r#"{"dataframe_split":{"columns":["fare","vip","age"],"data":[[7.5,true,30],[8,false,41.0]]}}"#,
        r#"{"dataframe_records":[{"age":30,"fare":7.5,"vip":true},{"vip":false,"fare":8,"age":41}]}"#,
        r#"{"instances":[{"age":30,"fare":7.5,"vip":true},{"vip":false,"fare":8,"age":41}]}"#,
        r#"{"inputs":{"vip":[true,false],"age":[30,41],"fare":[7.5,8]}}"#,
        r#"{"inputs":{"vip":[[true],[false]],"age":[[30],[41]],"fare":[[7.5],[8]]}}"#,
        r#"{"inputs":[[30,7.5,true],[41,8,false]]}"#,
        r#"{"dataframe_split":{"data":[[30,7.5,true],[41,8,false]]}}"#,
        r#"{"inputs":{"X":[[30,7.5,1],[41,8,0]]}}"#,
        "vip,age,fare\nTrue,30,7.5\nfalse,41,8\n",
    ] {
        assert_eq!(send(&plan, body).unwrap(), want, "{body}");
    }
}

#[test]
fn one_input_per_column_takes_strings() {
    let tensors =
        send(&per_column(), r#"{"dataframe_records":[{"city":"Rome","age":3,"fare":null}]}"#).unwrap();
    let names: Vec<&str> = tensors.iter().map(Tensor::name).collect();
    assert_eq!(names, ["age", "city", "fare"]);
    assert_eq!(tensors[1].data(), &Data::Bytes(vec!["Rome".to_owned()]));
    assert_eq!(tensors[1].shape(), [1, 1]);
    assert!(matches!(tensors[2].data(), Data::Fp32(v) if v[0].is_nan()));
    assert_eq!(
        send(&per_column(), "age,city,fare\n3,12,\n").unwrap()[1].data(),
        &Data::Bytes(vec!["12".to_owned()])
    );
}

#[test]
fn what_does_not_fit_names_the_column() {
    for (plan, body, field, want) in [
        (matrix(), r#"{"inputs":{"age":[1],"fare":[1]}}"#, Some("vip"), "lacks it"),
        (
            matrix(),
            r#"{"inputs":{"age":[1],"fare":[1],"vip":[true],"x":[1]}}"#,
            Some("x"),
            "no such input or column",
        ),
        (matrix(), r#"{"inputs":[["30",1,true]]}"#, Some("age"), "text where long"),
        (matrix(), r#"{"inputs":[[30.5,1,true]]}"#, Some("age"), "fraction where long"),
        (matrix(), r#"{"inputs":[[null,1,true]]}"#, Some("age"), "null (a missing value) where long"),
        (matrix(), r#"{"inputs":[[NaN,1,true]]}"#, Some("age"), "NaN (a missing value) where long"),
        (matrix(), r#"{"inputs":[[1,1e300,true]]}"#, Some("fare"), "out of the range of FP32"),
        (matrix(), r#"{"inputs":[[1,true,true]]}"#, Some("fare"), "boolean where double"),
        (matrix(), r#"{"inputs":[[1,1,1]]}"#, Some("vip"), "integer where boolean"),
        (matrix(), r#"{"inputs":[[1,1]]}"#, None, "a row has 2 values, but the model takes 3"),
        (matrix(), r#"{"inputs":[[[1,1,1]]]}"#, Some("X"), "shape"),
        (matrix(), r#"{"inputs":[]}"#, None, "no rows"),
        (matrix(), r#"{"inputs":[[],[]]}"#, None, "no columns"),
        (
            matrix(),
            r#"{"inputs":{"age":[1,2],"fare":[1],"vip":[true]}}"#,
            Some("fare"),
            "1 values, the first has 2",
        ),
        (matrix(), "age,fare,vip\nx,1,true\n", Some("age"), "text where long"),
        (matrix(), "age,fare,vip\n1,x,true\n", Some("fare"), "text where double"),
        (per_column(), r#"{"dataframe_records":[{"city":null,"age":3,"fare":1}]}"#, Some("city"), "null"),
        (
            per_column(),
            r#"{"dataframe_records":[{"city":7,"age":3,"fare":1}]}"#,
            Some("city"),
            "integer where string",
        ),
    ] {
        let error = send(&plan, body).unwrap_err();
        assert_eq!(error.status, 400);
        assert!(error.text().contains(want), "{body}: {error}");
        assert_eq!(error.field.as_deref(), field.or(error.field.as_deref()), "{body}: {error}");
    }
}

#[test]
fn schema_and_graph_that_differ_are_refused_with_both_sides() {
    let two = [column("a", ColumnKind::Double), column("b", ColumnKind::String)];
    let error = Plan::new(&two, &[input("X", Datatype::Fp32, &[None, Some(3)])]).unwrap_err();
    assert!(error.text().contains("a double, b string") && error.text().contains("X FP32[-1,3]"), "{error}");
    let error = Plan::new(&two, &[input("X", Datatype::Fp32, &[None, Some(2)])]).unwrap_err();
    assert!(error.text().contains("b: the schema says string"), "{error}");
    let graph = [input("a", Datatype::Int64, &[None]), input("b", Datatype::Bytes, &[None])];
    assert!(Plan::new(&two, &graph).unwrap_err().text().contains("a: the schema says double"));
    assert!(Plan::new(&two, &[]).is_err());
}

#[test]
fn optional_float_columns_may_be_left_out_and_no_others() {
    let mut columns = vec![column("a", ColumnKind::Double), column("b", ColumnKind::Double)];
    columns[1].required = false;
    let graph = [input("X", Datatype::Fp64, &[None, Some(2)])];
    let plan = Plan::new(&columns, &graph).unwrap();
    let tensors = send(&plan, r#"{"dataframe_records":[{"a":1}]}"#).unwrap();
    assert!(matches!(tensors[0].data(), Data::Fp64(v) if v[0] == 1.0 && v[1].is_nan()));
    columns[1].kind = ColumnKind::Long;
    let plan = Plan::new(&columns, &graph).unwrap();
    assert_eq!(send(&plan, r#"{"dataframe_records":[{"a":1}]}"#).unwrap_err().field.as_deref(), Some("b"));
}

#[test]
fn texts_may_be_missing_where_the_model_can_take_that_and_the_column_may() {
    let mut columns = vec![column("a", ColumnKind::String), column("day", ColumnKind::Datetime)];
    columns[0].required = false;
    let graph = [input("a", Datatype::Bytes, &[None]), input("day", Datatype::Bytes, &[None])];
    let body = r#"{"dataframe_records":[{"a":"x","day":"2026-01-01"},{"a":null,"day":"2026-01-02"}]}"#;
    let strict = Plan::new(&columns, &graph).unwrap();
    assert_eq!(send(&strict, body).unwrap_err().field.as_deref(), Some("a"));
    let plan = strict.with_missing_texts();
    let mask =
        |flags: &[bool]| Tensor::new(format!("a{MISSING}"), vec![2], Data::Bool(flags.to_vec())).unwrap();
    let tensors = send(&plan, body).unwrap();
    assert_eq!(tensors[0].data(), &Data::Bytes(vec!["x".to_owned(), String::new()]));
    assert_eq!(tensors[2..], [mask(&[false, true])]);
    let left_out = r#"{"dataframe_records":[{"day":"2026-01-01"},{"day":"2026-01-02"}]}"#;
    assert_eq!(send(&plan, left_out).unwrap()[2..], [mask(&[true, true])]);
    let whole = r#"{"dataframe_records":[{"a":"","day":"2026-01-01"}]}"#;
    assert_eq!(send(&plan, whole).unwrap().len(), 2, "an empty text is there");
    let required = r#"{"dataframe_records":[{"a":"x","day":null}]}"#;
    assert_eq!(send(&plan, required).unwrap_err().field.as_deref(), Some("day"));
}

#[test]
fn a_column_may_come_with_an_axis_of_one() {
    let plan = Plan::new(&[column("a", ColumnKind::Long)], &[input("a", Datatype::Int64, &[None])]).unwrap();
    let given = |shape: &[usize]| Tensor::new("a", shape.to_vec(), Data::Int64(vec![1, 2])).unwrap();
    assert_eq!(plan.accept(vec![given(&[2, 1])]).unwrap(), [given(&[2])]);
    assert!(plan.accept(vec![given(&[1, 2])]).is_err());
}

#[test]
fn without_a_schema_the_graph_speaks() {
    let plan = Plan::new(&[], &[input("X", Datatype::Fp32, &[None, Some(2)])]).unwrap();
    assert_eq!(send(&plan, r#"{"inputs":[[1,2]]}"#).unwrap()[0].shape(), [1, 2]);
    assert!(send(&plan, r#"{"inputs":[[1,2,3]]}"#).unwrap_err().text().contains("takes 2"));
    assert!(
        send(&plan, r#"{"dataframe_records":[{"a":1,"b":2}]}"#)
            .unwrap_err()
            .text()
            .contains("no feature schema")
    );
    let image = Plan::new(&[], &[input("X", Datatype::Fp32, &[None, Some(2), Some(2)])]).unwrap();
    assert_eq!(send(&image, r#"{"inputs":[[[1,2],[3,4]]]}"#).unwrap()[0].shape(), [1, 2, 2]);
    assert!(send(&image, r#"{"inputs":[[1,2]]}"#).is_err());
    assert!(
        send(&image, r#"{"dataframe_split":{"data":[[1]]}}"#).unwrap_err().text().contains("takes tensors")
    );
}

#[test]
fn tensors_of_a_request_are_matched_by_name_in_any_order() {
    let plan = per_column();
    let age = Tensor::new("age", vec![2], Data::Int64(vec![1, 2])).unwrap();
    let city = Tensor::new("city", vec![2, 1], Data::Bytes(vec![String::new(); 2])).unwrap();
    let fare = Tensor::new("fare", vec![2, 1], Data::Fp32(vec![0.0; 2])).unwrap();
    let accepted = plan.accept(vec![fare.clone(), city.clone(), age.clone()]).unwrap();
    assert_eq!(accepted, [age.clone(), city.clone(), fare.clone()]);
    assert_eq!(plan.accept(vec![fare.clone(), city.clone()]).unwrap_err().field.as_deref(), Some("age"));
    let short = Tensor::new("fare", vec![1, 1], Data::Fp32(vec![0.0])).unwrap();
    assert!(
        plan.accept(vec![age, city, short]).unwrap_err().text().contains("1 rows, but other inputs have 2")
    );
    let none = Tensor::new("X", vec![0, 3], Data::Fp32(vec![])).unwrap();
    assert!(matrix().accept(vec![none]).unwrap_err().text().contains("no rows"));
    let columns =
        [("age", Data::Int64(vec![30])), ("fare", Data::Fp64(vec![7.5])), ("vip", Data::Bool(vec![true]))];
    let tensors = columns.map(|(n, d)| Tensor::new(n, vec![1, 1], d).unwrap()).to_vec();
    assert_eq!(matrix().accept(tensors).unwrap()[0].data(), &Data::Fp32(vec![30.0, 7.5, 1.0]));
}
