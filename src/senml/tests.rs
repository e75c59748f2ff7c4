use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[test]
fn examples_of_the_standard_are_read() {
    for (text, count) in [
        (r#"[{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}]"#, 1),
        (
            r#"[{"bn":"urn:dev:ow:10e2073a01080063:","n":"voltage","u":"V","v":120.1},
                {"n":"current","u":"A","v":1.2}]"#,
            2,
        ),
        (VOLTAGE_AND_CURRENT, 7),
        (HUMIDITY_AND_PLACE, 13),
        (HUMIDITY_AND_PLACE_RESOLVED, 13),
        (DATA_TYPES, 4),
        (TWO_DEVICES, 4),
        (
            r#"[{"bn":"urn:dev:ow:10e2073a01080063:"},{"n":"temp","u":"Cel","v":23.1},
                {"n":"heat","u":"/","v":1},{"n":"fan","u":"/","v":0}]"#,
            3,
        ),
        (
            r#"[{"bt":1.320078429e+09,"bu":"/","n":"2001:db8::3","v":1},
                {"n":"2001:db8::4","v":1}]"#,
            2,
        ),
        (
            r#"[{"bt":1.320078429e+09,"bu":"/","n":"2001:db8::3","v":0.5},{"n":"2001:db8::4","v":0.5},
                {"n":"2001:db8::3","t":0.1,"v":0},{"n":"2001:db8::4","t":0.1,"v":0}]"#,
            4,
        ),
    ] {
        assert_eq!(of_json(text).measurements().len(), count, "{text}");
    }
}

#[test]
fn example_becomes_the_resolved_one() {
    assert_eq!(of_json(HUMIDITY_AND_PLACE), of_json(HUMIDITY_AND_PLACE_RESOLVED));
    let written = of_json(HUMIDITY_AND_PLACE).write(Format::Json);
    let first = r#"[{"n":"urn:dev:ow:10e2073a01080063","u":"%RH","v":20,"t":1320067464},"#;
    assert!(written.starts_with(first.as_bytes()), "{}", String::from_utf8_lossy(&written));
}

#[test]
fn example_in_cbor_is_the_one_in_json() {
    let bytes = bytes_of(VOLTAGE_AND_CURRENT_CBOR);
    assert_eq!(bytes.len(), 195);
    let resolved = of_cbor(&bytes);
    assert_eq!(resolved, of_json(VOLTAGE_AND_CURRENT));
    assert_eq!(resolved.version(), 5);
    let [first, .., last] = resolved.measurements() else { panic!("seven") };
    assert_eq!((first.name.as_str(), &first.unit), ("urn:dev:ow:10e2073a0108006:current", &Some("A".into())));
    assert_eq!((first.time.to_f64(), &first.value), (1_276_020_071.001, &Some(number(1.2))));
    assert_eq!((last.time.to_f64(), &last.value), (1_276_020_076.001, &Some(number(1.7))));
}

#[test]
fn values_have_their_types() {
    let values: Vec<_> = of_json(DATA_TYPES).into_measurements().into_iter().map(|each| each.value).collect();
    let text = Value::Text("Machine Room".into());
    let all = [number(23.1), text, Value::Boolean(false), Value::Data(b"hi \n".into())];
    assert_eq!(values, all.map(Some));
}

#[test]
fn base_name_is_the_latest_and_base_time_the_first() {
    let resolved = of_json(TWO_DEVICES);
    let names: Vec<_> = resolved.measurements().iter().map(|each| each.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "2001:db8::2/temperature",
            "2001:db8::2/humidity",
            "2001:db8::1/temperature",
            "2001:db8::1/humidity"
        ]
    );
    assert!(resolved.measurements().iter().all(|each| each.time.to_f64() == 1_320_078_429.0));
}

#[test]
fn base_fields_apply_until_they_come_again() {
    let text = r#"[{"bn":"a","bv":10,"bs":100,"bu":"m","v":1},{"v":2,"s":5,"u":"km"},
        {"bv":0,"bs":0,"bu":"","v":3},{"bn":"b","s":1},{"vs":"x"}]"#;
    let resolved = of_json(text);
    let seen = resolved.measurements().iter().map(|each| {
        let value = match &each.value {
            Some(Value::Number(number)) => number.to_string(),
            other => format!("{other:?}"),
        };
        (each.name.as_str(), value, each.sum.unwrap().to_string(), each.unit.as_deref().unwrap())
    });
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [
            ("a", "11".to_owned(), "100".to_owned(), "m"),
            ("a", "12".into(), "105".into(), "km"),
            ("a", "3".into(), "0".into(), ""),
            ("b", "None".into(), "1".into(), ""),
            ("b", "Some(Text(\"x\"))".into(), "0".into(), ""),
        ]
    );
}

#[test]
fn relative_times_are_those_below_2_to_the_28() {
    for (text, time) in [
        (r#"[{"n":"a","v":1}]"#, "1700000000.25"),
        (r#"[{"n":"a","v":1,"t":-2}]"#, "1699999998.25"),
        (r#"[{"n":"a","v":1,"bt":-2,"t":3}]"#, "1700000001.25"),
        (r#"[{"n":"a","v":1,"t":268435455}]"#, "1968435455.25"),
        (r#"[{"n":"a","v":1,"t":268435456}]"#, "268435456"),
        (r#"[{"n":"a","v":1,"bt":268435450,"t":6}]"#, "268435456"),
        (r#"[{"n":"a","v":1,"bt":1700000100,"t":-100}]"#, "1700000000"),
    ] {
        assert_eq!(of_json(text).measurements()[0].time.to_string(), time, "{text}");
    }
}

#[test]
fn resolved_records_are_in_order_of_time_and_then_as_they_came() {
    let text = r#"[{"n":"c","v":1,"t":2},{"n":"a","v":1},{"n":"b","v":1},{"n":"d","v":1,"t":-1}]"#;
    let names: String = of_json(text).into_measurements().into_iter().map(|each| each.name).collect();
    assert_eq!(names, "dabc");
}

#[test]
fn version_is_written_only_if_it_is_not_10() {
    for (text, written) in [
        (r#"[{"n":"a","v":1,"bver":10}]"#, r#"[{"n":"a","v":1,"t":1700000000.25}]"#),
        (
            r#"[{"n":"a","v":1,"bver":9},{"n":"b","vb":true}]"#,
            r#"[{"bver":9,"n":"a","v":1,"t":1700000000.25},{"bver":9,"n":"b","vb":true,"t":1700000000.25}]"#,
        ),
    ] {
        assert_eq!(String::from_utf8(of_json(text).write(Format::Json)).unwrap(), written);
    }
}

#[test]
fn integers_of_64_bits_stay_exact() {
    let text = r#"[{"n":"a","v":18446744073709551615},{"n":"a","v":-9223372036854775808},
        {"n":"a","v":18446744073709551616},{"n":"a","v":1e300},{"n":"a","v":0.1},{"n":"a","v":-0.0}]"#;
    let written = |resolved: &Resolved| {
        let values = resolved.measurements().iter().map(|each| match each.value {
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        });
        values.collect::<Vec<_>>().join(" ")
    };
    let resolved = of_json(text);
    let numbers = "18446744073709551615 -9223372036854775808 1.8446744073709552e19 1e300 0.1 0";
    assert_eq!(written(&resolved), numbers);
    assert_eq!(written(&of_cbor(&resolved.write(Format::Cbor))), numbers);
}

#[test]
fn unknown_fields_are_ignored() {
    let nested = r#"[{"n":"a","v":1,"ct":"60","_x":[{"a":[1,{"v":2}]}],"bct":null}]"#;
    let plain = of_json(r#"[{"n":"a","v":1}]"#);
    assert_eq!(of_json(nested), plain);
    for extension in
        ["60", "f6", "8201a1016161", "bf61619fffff", "7f61616162ff", "c11a00000000", "d9d9f7f97e00"]
    {
        let bytes = bytes_of(&format!("81a3 00 6161 02 01 626374 {extension}"));
        assert_eq!(of_cbor(&bytes), plain, "{extension}");
    }
}

#[test]
fn each_broken_rule_is_named_in_json() {
    use Problem::*;
    for (text, record, problem) in [
        ("", None, NoJson { line: 1, column: 0 }),
        ("[{]", None, NoJson { line: 1, column: 3 }),
        ("[{\"n\":\"a\",\"v\":1}", None, NoJson { line: 1, column: 16 }),
        ("\u{feff}[]", None, NoJson { line: 1, column: 1 }),
        (r#"[{"n":"a","v":1}] []"#, None, NoJson { line: 1, column: 19 }),
        (r#"[{"n":"a","v":NaN}]"#, None, NoJson { line: 1, column: 15 }),
        (r#"[{"n":"a","v":01}]"#, None, NoJson { line: 1, column: 16 }),
        (r#"{"n":"a","v":1}"#, None, NoPack),
        ("[1]", None, NoPack),
        ("[[]]", None, NoPack),
        ("[]", None, NoMeasurement),
        (r#"[{"bn":"a"}]"#, None, NoMeasurement),
        ("[{}]", Some(1), Name),
        (r#"[{"bn":"a:"},{"n":""},{"n":"b"}]"#, Some(2), NoValue),
        (r#"[{"n":"a"}]"#, Some(1), NoValue),
        (r#"[{"n":"a","bv":1}]"#, Some(1), NoValue),
        (r#"[{"n":"a","v":1},{"v":1}]"#, Some(2), Name),
        (r#"[{"n":"a","v":1},{"n":"-a","v":1}]"#, Some(2), Name),
        (r#"[{"n":"_a","v":1}]"#, Some(1), Name),
        (r#"[{"n":"a b","v":1}]"#, Some(1), Name),
        (r#"[{"n":"a+","v":1}]"#, Some(1), Name),
        (r#"[{"n":"a#","v":1}]"#, Some(1), Name),
        (r#"[{"n":"ä","v":1}]"#, Some(1), Name),
        (r#"[{"n":"a","v":1,"vs":"x"}]"#, Some(1), SeveralValues),
        (r#"[{"n":"a","vb":true,"vd":"AA"}]"#, Some(1), SeveralValues),
        (r#"[{"n":"a","v":1,"n":"b"}]"#, Some(1), Twice),
        (r#"[{"n":"a","v":1,"v":1}]"#, Some(1), Twice),
        (r#"[{"n":"a","v":1,"x":1,"x":2}]"#, Some(1), Twice),
        (r#"[{"n":"a","v":1,"\u0076":1}]"#, Some(1), Twice),
        (r#"[{"n":"a","v":1,"x_":1}]"#, Some(1), MustUnderstand),
        (r#"[{"n":"a","v":1,"_":1}]"#, Some(1), MustUnderstand),
        (r#"[{"n":"a","v":"1"}]"#, Some(1), Type("v")),
        (r#"[{"n":"a","v":null}]"#, Some(1), Type("v")),
        (r#"[{"n":"a","v":true}]"#, Some(1), Type("v")),
        (r#"[{"n":1,"v":1}]"#, Some(1), Type("n")),
        (r#"[{"n":["a"],"v":1}]"#, Some(1), Type("n")),
        (r#"[{"n":"\ud800","v":1}]"#, Some(1), Type("n")),
        (r#"[{"n":"a","vb":"true"}]"#, Some(1), Type("vb")),
        (r#"[{"n":"a","vs":1}]"#, Some(1), Type("vs")),
        (r#"[{"n":"a","vd":"a+/="}]"#, Some(1), Type("vd")),
        (r#"[{"n":"a","vd":"aGkgCg=="}]"#, Some(1), Type("vd")),
        (r#"[{"n":"a","vd":"aGkgCh"}]"#, Some(1), Type("vd")),
        (r#"[{"n":"a","v":1,"t":"now"}]"#, Some(1), Type("t")),
        (r#"[{"n":"a","v":1E2}]"#, Some(1), Exponent("v")),
        (r#"[{"n":"a","v":1e999}]"#, Some(1), Range("v")),
        (r#"[{"n":"a","bv":1e308,"v":1e308}]"#, Some(1), Range("v")),
        (r#"[{"n":"a","bs":1e308,"s":1e308}]"#, Some(1), Range("s")),
        (r#"[{"n":"a","v":1,"bt":1e308,"t":1e308}]"#, Some(1), Range("t")),
        (r#"[{"n":"a","v":1,"t":-1e10}]"#, Some(1), TooEarly),
        (r#"[{"n":"a","v":1,"bver":11}]"#, Some(1), Version),
        (r#"[{"n":"a","v":1,"bver":0}]"#, Some(1), Version),
        (r#"[{"n":"a","v":1,"bver":5.5}]"#, Some(1), Version),
        (r#"[{"n":"a","v":1,"bver":-1}]"#, Some(1), Version),
        (r#"[{"n":"a","v":1,"bver":"10"}]"#, Some(1), Type("bver")),
        (r#"[{"n":"a","v":1,"bver":5},{"bver":6,"v":1}]"#, Some(2), MixedVersions),
        (r#"[{"n":"a","v":1},{"bver":5,"v":1}]"#, Some(2), MixedVersions),
    ] {
        let fault = Pack::parse_json(text.as_bytes()).and_then(|pack| pack.resolve(NOW));
        assert_eq!(fault, Err(Fault { record, problem }), "{text}");
    }
    let invalid = Pack::parse_json(b"[{\"n\":\"a\",\"vs\":\"\xff\"}]");
    assert!(matches!(invalid, Err(Fault { problem: NoJson { .. }, .. })), "{invalid:?}");
}

#[test]
fn each_broken_rule_is_named_in_cbor() {
    use Problem::*;
    for (hex, record, problem) in [
        ("", None, NoCbor),
        ("01", None, NoPack),
        ("a0", None, NoPack),
        ("9f a2 00 6161 02 01 ff", None, NoPack),
        ("80", None, NoMeasurement),
        ("81 01", Some(1), NoPack),
        ("82 a2 00 6161 02 01", Some(2), NoCbor),
        ("81 a2 00 6161 02", Some(1), NoCbor),
        ("81 a2 00 6161 02 01 00", None, Trailing),
        ("81 a2 00 6161 02 1c", Some(1), NoCbor),
        ("81 a2 00 6161 02 1f", Some(1), NoCbor),
        ("81 a2 00 6161 02 3f", Some(1), NoCbor),
        ("81 a2 00 6161 02 df01", Some(1), NoCbor),
        ("81 a2 00 6161 1f 01", Some(1), NoCbor),
        ("81 a2 00 6161 02 c482001f", Some(1), NoCbor),
        ("81 a2 00 6161 02 c4821f01", Some(1), NoCbor),
        ("81 a2 00 6161 02 5c", Some(1), NoCbor),
        ("81 a2 00 6161 04 fd", Some(1), NoCbor),
        ("81 a2 00 6161 04 f815", Some(1), NoCbor),
        ("9c a2 00 6161 02 01", None, NoCbor),
        ("81 a2 00 6161 ff", Some(1), Key),
        ("81 a2 00 6161 f4 01", Some(1), Key),
        ("81 a2 00 6161 09 01", Some(1), Label),
        ("81 a2 00 6161 26 01", Some(1), Label),
        ("81 a2 00 6161 6176 01", Some(1), Label),
        ("81 a3 00 6161 02 01 615f 01", Some(1), MustUnderstand),
        ("81 a3 00 6161 02 01 02 01", Some(1), Twice),
        ("81 a4 00 6161 02 01 6178 01 6178 01", Some(1), Twice),
        ("81 a3 00 6161 02 01 04 f5", Some(1), SeveralValues),
        ("81 a2 00 7f6161ff 02 01", Some(1), Type("n")),
        ("81 a2 00 4161 02 01", Some(1), Type("n")),
        ("81 a2 00 61ff 02 01", Some(1), Type("n")),
        ("81 a2 00 6161 08 6161", Some(1), Type("vd")),
        ("81 a2 00 6161 08 5f4161ff", Some(1), Type("vd")),
        ("81 a2 00 6161 02 f6", Some(1), Type("v")),
        ("81 a2 00 6161 02 c101", Some(1), Type("v")),
        ("81 a2 00 6161 02 c482f90001", Some(1), NoCbor),
        ("81 a2 00 6161 02 c48120", Some(1), Type("v")),
        ("81 a2 00 6161 02 c48220c24101", Some(1), Type("v")),
        ("81 a2 00 6161 02 c4821a7fffffff01", Some(1), Range("v")),
        ("81 a2 00 6161 02 f97e00", Some(1), Range("v")),
        ("81 a2 00 6161 02 f97c00", Some(1), Range("v")),
        ("81 a2 00 6161 02 fa7f800000", Some(1), Range("v")),
        ("81 a2 00 6161 02 fbfff0000000000000", Some(1), Range("v")),
        ("81 a3 00 6161 02 01 20 f94900", Some(1), Type("bver")),
        ("81 a3 00 6161 02 01 20 0b", Some(1), Version),
        ("81 a1 02 01", Some(1), Name),
        ("81 a1 00 6161", Some(1), NoValue),
        ("9a00002711", None, TooManyRecords),
        ("9bffffffffffffffff", None, TooManyRecords),
        ("81 a3 00 6161 02 01 6178 9bffffffffffffffff", Some(1), NoCbor),
        ("81 a3 00 6161 02 01 6178 bbffffffffffffffff", Some(1), NoCbor),
        ("81 a3 00 6161 02 01 6178 5f6161ff", Some(1), NoCbor),
        ("81 a3 00 6161 02 01 6178 ff", Some(1), NoCbor),
        ("81 a3 00 6161 02 01 6178 1f", Some(1), NoCbor),
        ("81 a3 00 6161 02 01 6178 f800", Some(1), NoCbor),
        ("81 a3 00 6161 02 01 6178 8181818181818181818181818181818100", Some(1), Depth),
    ] {
        let fault = Pack::parse_cbor(&bytes_of(hex)).and_then(|pack| pack.resolve(NOW));
        assert_eq!(fault, Err(Fault { record, problem }), "{hex}");
    }
}

#[test]
fn numbers_of_cbor_are_integers_floats_and_decimal_fractions() {
    for (hex, shown) in [
        ("17", "23"),
        ("1818", "24"),
        ("1bffffffffffffffff", "18446744073709551615"),
        ("3bffffffffffffffff", "-1.8446744073709552e19"),
        ("20", "-1"),
        ("f93e00", "1.5"),
        ("f9c400", "-4"),
        ("f90001", "5.960464477539063e-8"),
        ("fa3fc00000", "1.5"),
        ("fb405e066666666666", "120.1"),
        ("c48221196ab3", "273.15"),
        ("c4820215", "2100"),
        ("c4822000", "0"),
        ("c482001b0020000000000001", "9007199254740993"),
        ("c482003b0020000000000000", "-9007199254740993"),
        ("c482011b0020000000000001", "90071992547409930"),
        ("c482201b014000000000000a", "9007199254740993"),
        ("c482031bffffffffffffffff", "1.8446744073709552e22"),
        ("c482182801", "1e40"),
        ("c4823a7fffffff1bffffffffffffffff", "0"),
        ("c4823a7fffffff01", "0"),
    ] {
        let resolved = of_cbor(&bytes_of(&format!("81a2 00 6161 02 {hex}")));
        let Some(Value::Number(number)) = resolved.measurements()[0].value else { panic!("{hex}") };
        assert_eq!(number.to_string(), shown, "{hex}");
    }
    let indefinite_map = of_cbor(&bytes_of("81 bf 00 6161 02 01 ff"));
    assert_eq!(indefinite_map, of_json(r#"[{"n":"a","v":1}]"#));
}

#[test]
fn packs_have_bounds() {
    let many = |count: usize| format!("[{}]", vec![r#"{"n":"a","v":1}"#; count].join(","));
    assert_eq!(of_json(&many(MAX_RECORDS)).measurements().len(), MAX_RECORDS);
    let refused = Pack::parse_json(many(MAX_RECORDS + 1).as_bytes());
    assert_eq!(refused, Err(Problem::TooManyRecords.in_pack()));
    let long = vec![b' '; MAX_BYTES + 1];
    assert_eq!(Pack::parse_json(&long), Err(Problem::TooLarge.in_pack()));
    assert_eq!(Pack::parse_cbor(&long), Err(Problem::TooLarge.in_pack()));
    let deep = format!(r#"[{{"n":"a","v":1,"x":{}{}}}]"#, "[".repeat(200_000), "]".repeat(200_000));
    assert_eq!(of_json(&deep), of_json(r#"[{"n":"a","v":1}]"#));
}

#[test]
fn long_base_name_does_not_make_a_pack_grow_without_end() {
    let name = "a".repeat(200_000);
    let text = format!(r#"[{{"bn":"{name}","v":1}},{{"v":1}},{{"v":1}},{{"v":1}},{{"v":1}},{{"v":1}}]"#);
    let fault = Pack::parse_json(text.as_bytes()).unwrap().resolve(NOW);
    assert_eq!(fault, Err(Problem::TooLarge.in_record(5)));
}

#[test]
fn first_byte_tells_the_format() {
    for (bytes, format) in [
        (&b" \n[{}]"[..], Some(Format::Json)),
        (b"\x81\xa0", Some(Format::Cbor)),
        (b"\x9f", Some(Format::Cbor)),
        (b"{}", None),
        (b"\xa0", None),
        (b"", None),
        (b"21.5", None),
    ] {
        assert_eq!(Format::of_pack(bytes), format, "{bytes:?}");
    }
}

#[test]
fn what_is_written_is_what_others_read() {
    let resolved = of_json(DATA_TYPES);
    let ours: Vec<BTreeMap<i8, ciborium::Value>> =
        ciborium::from_reader(resolved.write(Format::Cbor).as_slice()).unwrap();
    assert_eq!(ours[0][&2], ciborium::Value::Float(23.1));
    assert_eq!(ours[1][&3], ciborium::Value::Text("Machine Room".into()));
    assert_eq!(ours[2][&4], ciborium::Value::Bool(false));
    assert_eq!(ours[3][&8], ciborium::Value::Bytes(b"hi \n".into()));
    assert!(ours.iter().all(|record| record[&6] == ciborium::Value::Float(1_700_000_000.25)));
    let theirs: serde_json::Value = serde_json::from_slice(&resolved.write(Format::Json)).unwrap();
    assert_eq!(theirs[3]["vd"], "aGkgCg");
}

proptest! {
    #[test]
    fn resolved_packs_are_read_as_they_were_written(records in packs()) {
        let resolved = resolve::resolve(records, NOW).unwrap();
        for format in [Format::Cbor, Format::Json] {
            let bytes = resolved.write(format);
            prop_assert_eq!(Format::of_pack(&bytes), Some(format));
            let again = Pack::parse(&bytes, format).unwrap().resolve(NOW + Duration::from_secs(5)).unwrap();
            prop_assert_eq!(&again, &resolved);
            prop_assert_eq!(again.write(format), bytes);
        }
    }

    #[test]
    fn bytes_made_by_chance_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Pack::parse_json(&bytes).and_then(|pack| pack.resolve(NOW));
        let _ = Pack::parse_cbor(&bytes).and_then(|pack| pack.resolve(NOW));
    }

    #[test]
    fn every_double_is_read_as_it_is_written(bits in any::<u64>()) {
        let float = f64::from_bits(bits);
        match Number::from_f64(float) {
            Some(number) => {
                prop_assert_eq!(number.to_f64(), float);
                prop_assert_eq!(Number::from_digits(&number.to_string()), Some(number));
            }
            None => prop_assert!(!float.is_finite()),
        }
    }
}

/// Records that break no rule.
fn packs() -> impl Strategy<Value = Vec<Record>> {
    let record = (
        ("[a-zA-Z0-9][-a-zA-Z0-9:./_]{0,8}", prop::option::of("[a-z:]{0,4}")),
        prop::option::of(any::<String>()),
        values(),
        (prop::option::of(numbers()), prop::option::of(numbers())),
        (prop::option::of(-1e6..1e6), prop::option::of(prop_oneof![Just(0.0), 1e9..2e9])),
        prop::option::of(numbers()),
    );
    let record =
        record.prop_map(|((base, name), unit, value, (sum, base_value), (time, base_time), update_time)| {
            let time = time.and_then(Number::from_f64);
            let base_time = base_time.and_then(Number::from_f64);
            let base_name = Some(base);
            let value = Some(value);
            Record {
                base_name,
                name,
                unit,
                value,
                sum,
                base_value,
                time,
                base_time,
                update_time,
                ..Record::default()
            }
        });
    let version = prop_oneof![Just(None), (1..=record::VERSION).prop_map(Some)];
    (version, prop::collection::vec(record, 1..6)).prop_map(|(version, mut records)| {
        records[0].version = version;
        records
    })
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Boolean),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Value::Data),
        numbers().prop_map(Value::Number),
        any::<String>().prop_map(Value::Text),
    ]
}

/// Numbers whose sums can be told.
fn numbers() -> impl Strategy<Value = Number> {
    let floats = (-1e300..1e300).prop_map(|number| Number::from_f64(number).unwrap());
    let small = (-1e3..1e3).prop_map(|number| Number::from_f64(number).unwrap());
    prop_oneof![floats, small, any::<i64>().prop_map(|number| Number::from_integer(number.into()))]
}

fn of_json(text: &str) -> Resolved {
    Pack::parse_json(text.as_bytes())
        .and_then(|pack| pack.resolve(NOW))
        .unwrap_or_else(|fault| panic!("{fault}: {text:.200}"))
}

fn of_cbor(bytes: &[u8]) -> Resolved {
    Pack::parse_cbor(bytes)
        .and_then(|pack| pack.resolve(NOW))
        .unwrap_or_else(|fault| panic!("{fault}: {bytes:02x?}"))
}

fn number(number: f64) -> Value {
    Value::Number(Number::from_f64(number).unwrap())
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

const NOW: Duration = Duration::from_micros(1_700_000_000_250_900);

/// RFC 8428 §5.1.2
const VOLTAGE_AND_CURRENT: &str = r#"[
    {"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,
     "n":"voltage","u":"V","v":120.1},
    {"n":"current","t":-5,"v":1.2},
    {"n":"current","t":-4,"v":1.3},
    {"n":"current","t":-3,"v":1.4},
    {"n":"current","t":-2,"v":1.5},
    {"n":"current","t":-1,"v":1.6},
    {"n":"current","v":1.7}]"#;

/// RFC 8428 §6
const VOLTAGE_AND_CURRENT_CBOR: &str = "
    87 a7 21 78 1b 75 72 6e 3a 64 65 76 3a 6f 77 3a 31 30 65 32 30 37 33 61 30 31 30 38 30 30 36 3a
    22 fb 41 d3 03 a1 5b 00 10 62 23 61 41 20 05 00 67 76 6f 6c 74 61 67 65 01 61 56 02 fb 40 5e 06
    66 66 66 66 66 a3 00 67 63 75 72 72 65 6e 74 06 24 02 fb 3f f3 33 33 33 33 33 33 a3 00 67 63 75
    72 72 65 6e 74 06 23 02 fb 3f f4 cc cc cc cc cc cd a3 00 67 63 75 72 72 65 6e 74 06 22 02 fb 3f
    f6 66 66 66 66 66 66 a3 00 67 63 75 72 72 65 6e 74 06 21 02 f9 3e 00 a3 00 67 63 75 72 72 65 6e
    74 06 20 02 fb 3f f9 99 99 99 99 99 9a a3 00 67 63 75 72 72 65 6e 74 06 00 02 fb 3f fb 33 33 33
    33 33 33";

/// RFC 8428 §5.1.3
const HUMIDITY_AND_PLACE: &str = r#"[
    {"bn":"urn:dev:ow:10e2073a01080063","bt":1.320067464e+09,"bu":"%RH","v":20},
    {"u":"lon","v":24.30621},
    {"u":"lat","v":60.07965},
    {"t":60,"v":20.3},
    {"u":"lon","t":60,"v":24.30622},
    {"u":"lat","t":60,"v":60.07965},
    {"t":120,"v":20.7},
    {"u":"lon","t":120,"v":24.30623},
    {"u":"lat","t":120,"v":60.07966},
    {"u":"%EL","t":150,"v":98},
    {"t":180,"v":21.2},
    {"u":"lon","t":180,"v":24.30628},
    {"u":"lat","t":180,"v":60.07967}]"#;

/// RFC 8428 §5.1.4
const HUMIDITY_AND_PLACE_RESOLVED: &str = r#"[
    {"n":"urn:dev:ow:10e2073a01080063","u":"%RH","t":1.320067464e+09,"v":20},
    {"n":"urn:dev:ow:10e2073a01080063","u":"lon","t":1.320067464e+09,"v":24.30621},
    {"n":"urn:dev:ow:10e2073a01080063","u":"lat","t":1.320067464e+09,"v":60.07965},
    {"n":"urn:dev:ow:10e2073a01080063","u":"%RH","t":1.320067524e+09,"v":20.3},
    {"n":"urn:dev:ow:10e2073a01080063","u":"lon","t":1.320067524e+09,"v":24.30622},
    {"n":"urn:dev:ow:10e2073a01080063","u":"lat","t":1.320067524e+09,"v":60.07965},
    {"n":"urn:dev:ow:10e2073a01080063","u":"%RH","t":1.320067584e+09,"v":20.7},
    {"n":"urn:dev:ow:10e2073a01080063","u":"lon","t":1.320067584e+09,"v":24.30623},
    {"n":"urn:dev:ow:10e2073a01080063","u":"lat","t":1.320067584e+09,"v":60.07966},
    {"n":"urn:dev:ow:10e2073a01080063","u":"%EL","t":1.320067614e+09,"v":98},
    {"n":"urn:dev:ow:10e2073a01080063","u":"%RH","t":1.320067644e+09,"v":21.2},
    {"n":"urn:dev:ow:10e2073a01080063","u":"lon","t":1.320067644e+09,"v":24.30628},
    {"n":"urn:dev:ow:10e2073a01080063","u":"lat","t":1.320067644e+09,"v":60.07967}]"#;

/// RFC 8428 §5.1.5
const DATA_TYPES: &str = r#"[
    {"bn":"urn:dev:ow:10e2073a01080063:","n":"temp","u":"Cel","v":23.1},
    {"n":"label","vs":"Machine Room"},
    {"n":"open","vb":false},
    {"n":"nfv-reader","vd":"aGkgCg"}]"#;

/// RFC 8428 §5.1.6
const TWO_DEVICES: &str = r#"[
    {"bn":"2001:db8::2/","bt":1.320078429e+09,"n":"temperature","u":"Cel","v":25.2},
    {"n":"humidity","u":"%RH","v":30},
    {"bn":"2001:db8::1/","n":"temperature","u":"Cel","v":12.3},
    {"n":"humidity","u":"%RH","v":67}]"#;
