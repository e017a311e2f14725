//! Properties of rules: exact sums, JSON that survives, and nothing that any rules, state and events do ends in a panic, a hang or a
//! count of bytes that is wrong.

mod fold_rules;

use eventstream_core::json::Value;
use eventstream_core::rules::{Limits, Rules, State};
use fold_rules::{Event, LIMITS, fold, message, rules, value};
use proptest::prelude::*;

/// A decimal as an integer and its scale, printed by hand: what the rules' own numbers are compared with.
fn printed(coefficient: i128, scale: usize) -> String {
    let digits = format!("{:0width$}", coefficient.unsigned_abs(), width = scale + 1);
    let (before, after) = digits.split_at(digits.len() - scale);
    let sign = if coefficient < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{before}") } else { format!("{sign}{before}.{after}") }
}

/// A generator of random numbers that needs nothing (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[test]
fn a_million_random_decimals_added_and_subtracted_are_their_exact_sum() {
    let rules = rules(
        r#"{"on": {"Credited": [{"add": {"/balance": "/amount"}}], "Debited": [{"subtract": {"/balance": "/amount"}}]}}"#,
    );
    let mut random = Random(20_241_031);
    let mut state = State::new(value("{}"));
    let (mut sum, mut largest_scale) = (0_i128, 0);
    let mut event = Event::new("Credited", r#"{"amount": 0}"#);
    for place in 1..=1_000_000 {
        // Up to 12 digits before the point; zeros, and zeros with a scale, too; the scale grows up to 18.
        let scale = (random.next() % 19).min(place / 10_000) as usize;
        let digits = random.next() % 13 + scale as u64;
        let is_debit = random.next() & 1 == 1;
        let magnitude = i128::from(random.next()) * i128::from(random.next() >> 16);
        let coefficient = magnitude % 10_i128.pow(digits as u32) * if random.next() & 3 == 0 { -1 } else { 1 };
        let Value::Object(members) = &mut event.0 else { unreachable!() };
        members.insert("type".into(), Value::Text(if is_debit { "Debited" } else { "Credited" }.into()));
        let amount = Value::parse(&printed(coefficient, scale)).unwrap();
        members.insert("payload".into(), Value::Object([("amount".to_owned(), amount)].into()));
        rules.apply(&mut state, &event, &LIMITS).map_err(message).unwrap();
        let scaled = coefficient * 10_i128.pow(18 - scale as u32);
        sum += if is_debit { -scaled } else { scaled };
        largest_scale = largest_scale.max(scale);
        if place % 9_999 == 0 || place == 1_000_000 {
            let shift = 10_i128.pow(18 - largest_scale as u32);
            assert_eq!(sum % shift, 0);
            let expected = format!("{{\"balance\": {}}}", printed(sum / shift, largest_scale));
            assert_eq!(state.value().to_text(), expected, "after {place} events");
        }
    }
    assert_eq!(largest_scale, 18);
}

/// Numbers as JSON writes them, with exponents that are too large as well.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?",
        2 => "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?[eE][+-]?[0-9]{1,3}",
        1 => prop::sample::select(vec![
            "1e131071", "9e131071", "1e131072", "1e-16383", "1e-16384", "1e999999999", "1e-999999999", "0e999999999",
            "-0", "-0.00", "1e99999999999999999999", "1e-99999999999999999999",
        ]).prop_map(str::to_owned),
    ]
}

fn document() -> impl Strategy<Value = Value> {
    let plain = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?".prop_map(|text| value(&text)),
        ".{0,8}".prop_map(Value::Text),
        any::<String>().prop_map(Value::Text),
    ];
    plain.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::btree_map("[a-c/~-]{0,2}|.{0,3}", inner, 0..5).prop_map(Value::Object),
        ]
    })
}

/// Pointers that often meet something.
fn pointer() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::collection::vec("a|b|c|-|0|1|00|~0|~1||\\{/a\\}|\\{/b/0\\}|\\{", 0..4)
            .prop_map(|tokens| tokens.iter().map(|token| format!("/{token}")).collect()),
        1 => Just("/a".repeat(64)),
        1 => ".{0,6}",
    ]
}

fn source() -> impl Strategy<Value = serde_json::Value> {
    let named = prop_oneof![
        3 => pointer(),
        3 => pointer().prop_map(|pointer| format!("state:{pointer}")),
        1 => pointer().prop_map(|pointer| format!("event:/metadata{pointer}")),
        1 => Just("event:/version".to_owned()),
    ];
    let constant = prop_oneof![document().prop_map(|value| value.to_text()), number()]
        .prop_map(|text| serde_json::from_str(&text).unwrap_or(serde_json::Value::Null));
    prop_oneof![
        4 => named.clone().prop_map(serde_json::Value::from),
        2 => constant.clone().prop_map(|constant| serde_json::json!({"value": constant})),
        2 => (named, constant).prop_map(|(from, constant)| serde_json::json!({"from": from, "default": constant})),
    ]
}

fn operation() -> impl Strategy<Value = serde_json::Value> {
    let each = prop::sample::select(vec!["set", "merge", "add", "subtract", "multiply", "min", "max", "append"]);
    let mode = prop::sample::select(vec!["half_up", "half_down", "half_even", "up", "down", "ceiling", "floor"]);
    let rounding = (0_u32..30, mode).prop_map(|(scale, mode)| serde_json::json!({"scale": scale, "mode": mode}));
    let division = (pointer(), source(), rounding.clone()).prop_map(|(target, by, mut division)| {
        division["by"] = by;
        serde_json::json!({ "divide": { target: division } })
    });
    let rounded =
        (pointer(), rounding).prop_map(|(target, rounding)| serde_json::json!({ "round": { target: rounding } }));
    let assignments = prop::collection::hash_map(pointer(), source(), 1..3);
    let targets = prop::sample::select(vec!["increment", "remove"]);
    let plain = prop_oneof![
        4 => (each, assignments).prop_map(|(name, assignments)| serde_json::json!({ name: assignments })),
        1 => division,
        1 => rounded,
        1 => (targets, prop::collection::vec(pointer(), 1..3))
            .prop_map(|(name, targets)| serde_json::json!({ name: targets })),
    ];
    let test = prop::sample::select(vec!["equals", "differs", "less_than", "at_most", "more_than", "at_least"]);
    let guard = prop_oneof![
        any::<bool>().prop_map(|exists| serde_json::json!({"exists": exists})),
        (test, source()).prop_map(|(test, source)| match source {
            serde_json::Value::String(from) => serde_json::json!({test: {"from": from}}),
            operand => serde_json::json!({ test: operand }),
        }),
    ];
    (plain, prop::option::weighted(0.2, (pointer(), guard))).prop_map(|(mut operation, when)| {
        if let Some((at, guard)) = when {
            operation["when"] = serde_json::json!({ at: guard });
        }
        operation
    })
}

const MODES: [&str; 7] = ["half_up", "half_down", "half_even", "up", "down", "ceiling", "floor"];

/// The neighbour of `a / b` that the mode chooses, found among the two by their distances.
fn by_hand(a: i128, b: i128, mode: usize) -> i128 {
    let (a, b) = if b < 0 { (-a, -b) } else { (a, b) };
    let floor = a.div_euclid(b);
    let (below, above) = (a - floor * b, (floor + 1) * b - a);
    if below == 0 {
        return floor;
    }
    let ceiling = floor + 1;
    let (inner, outer) = if a < 0 { (ceiling, floor) } else { (floor, ceiling) };
    let nearer = if below < above { floor } else { ceiling };
    match (MODES[mode], below == above) {
        ("half_up", true) | ("up", _) => outer,
        ("half_down", true) | ("down", _) => inner,
        ("half_even", true) => {
            if floor % 2 == 0 {
                floor
            } else {
                ceiling
            }
        }
        ("ceiling", _) => ceiling,
        ("floor", _) => floor,
        _ => nearer,
    }
}

proptest! {
    #[test]
    fn a_sum_is_that_of_the_scaled_integers(
        amounts in prop::collection::vec((-1_000_000_000_000_i128..1_000_000_000_000, 0_usize..12, any::<bool>()), 1..20),
    ) {
        let scale = amounts.iter().map(|(_, scale, _)| *scale).max().unwrap();
        let mut sum = 0;
        let mut state = State::new(value("{}"));
        let rules = rules(r#"{"on": {"+": [{"add": {"/n": ""}}], "-": [{"subtract": {"/n": ""}}]}}"#);
        for (coefficient, own_scale, is_debit) in amounts {
            let event = Event::new(if is_debit { "-" } else { "+" }, &printed(coefficient, own_scale));
            rules.apply(&mut state, &event, &LIMITS).map_err(message).unwrap();
            sum += coefficient * 10_i128.pow((scale - own_scale) as u32) * if is_debit { -1 } else { 1 };
        }
        prop_assert_eq!(state.value().to_text(), format!("{{\"n\": {}}}", printed(sum, scale)));
    }

    #[test]
    fn a_product_is_that_of_the_integers_and_rounds_once(
        (a, a_scale) in (-1_000_000_000_000_i128..1_000_000_000_000, 0_usize..9),
        (b, b_scale) in (-1_000_000_000_i128..1_000_000_000, 0_usize..9),
        scale in 0_usize..12,
        mode in 0_usize..7,
    ) {
        let rules = format!(
            r#"[{{"set": {{"/p": "/a", "/q": "/a", "/r": "/a"}}}}, {{"multiply": {{"/p": "/b", "/r": "/b"}}}},
                {{"round": {{"/r": {{"scale": {scale}, "mode": "{0}"}}}}}},
                {{"when": {{"/b": {{"differs": 0}}}}, "divide": {{"/q": {{"by": "/b", "scale": {scale}, "mode": "{0}"}}}}}}]"#,
            MODES[mode]
        );
        let payload = format!("{{\"a\": {}, \"b\": {}}}", printed(a, a_scale), printed(b, b_scale));
        let ten = |exponent: usize| 10_i128.pow(u32::try_from(exponent).unwrap());
        let product = a * b;
        let rounded = by_hand(product * ten(scale), ten(a_scale + b_scale), mode);
        // a / 10^as / (b / 10^bs) * 10^scale
        let quotient = if b == 0 { printed(a, a_scale) } else { printed(by_hand(a * ten(scale + b_scale), b * ten(a_scale), mode), scale) };
        let expected = format!("{{\"p\": {}, \"q\": {quotient}, \"r\": {}}}", printed(product, a_scale + b_scale), printed(rounded, scale));
        prop_assert_eq!(fold(&rules, "{}", &[&payload]), Ok(expected));
    }

    #[test]
    fn min_and_max_are_those_of_the_scaled_integers(numbers in prop::collection::vec((-200_i128..200, 0_usize..4), 1..9)) {
        let payloads: Vec<_> = numbers.iter().map(|(coefficient, scale)| printed(*coefficient, *scale)).collect();
        let payloads: Vec<_> = payloads.iter().map(String::as_str).collect();
        let scaled = |(coefficient, scale): &(i128, usize)| coefficient * 10_i128.pow((4 - scale) as u32);
        // The first of equal ones stays: max_by_key gives the last, so it goes backwards.
        let (least, most) = (numbers.iter().min_by_key(|n| scaled(n)).unwrap(), numbers.iter().rev().max_by_key(|n| scaled(n)).unwrap());
        let expected = format!("{{\"least\": {}, \"most\": {}}}", printed(least.0, least.1), printed(most.0, most.1));
        prop_assert_eq!(fold(r#"[{"min": {"/least": ""}}, {"max": {"/most": ""}}]"#, "{}", &payloads), Ok(expected));
    }

    #[test]
    fn what_is_written_reads_back_as_the_same(document in document()) {
        let text = document.to_text();
        let again = Value::parse(&text).unwrap();
        prop_assert_eq!(&again, &document);
        prop_assert_eq!(again.to_text(), text, "numbers keep their scale");
        let size = document.size();
        prop_assert!(size >= 32 && document.depth() <= 6);
    }

    #[test]
    fn other_readers_understand_what_is_written(document in document()) {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(&document.to_text());
        prop_assert!(parsed.is_ok(), "{:?}", parsed);
    }

    #[test]
    fn any_number_is_read_or_refused_and_prints_without_an_exponent(text in number()) {
        if let Ok(number) = Value::parse(&text) {
            let printed = number.to_text();
            prop_assert!(printed.len() <= 131_072 + 16_383 + 2);
            prop_assert!(printed.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-' || byte == b'.'), "{}", printed);
            prop_assert_eq!(Value::parse(&printed), Ok(number));
        }
    }

    #[test]
    fn no_text_makes_reading_rules_panic(text in prop_oneof![any::<String>(), document().prop_map(|value| value.to_text())]) {
        let _ = Rules::parse(&text);
        let _ = Rules::parse(&format!("{{\"on\": {{\"E\": [{text}]}}}}"));
        let _ = Rules::parse(&format!("{{\"on\": {{\"E\": [{{\"set\": {text}}}]}}}}"));
        let _ = Rules::parse(&format!("{{\"on\": {{\"E\": [{{\"when\": {text}, \"remove\": \"/a\"}}]}}}}"));
    }

    #[test]
    fn whatever_rules_events_and_states_come_the_limits_hold_and_the_count_is_right(
        operations in prop::collection::vec(operation(), 1..40),
        initial in document(),
        payloads in prop::collection::vec(document(), 1..8),
        number_digits in 20_usize..200,
        depth in 1_usize..80,
        state_bytes in 200_usize..20_000,
    ) {
        let limits = Limits { depth, number_digits, state_bytes };
        // Each operation by itself, so that the others still count where one is a mistake, or meets what it cannot use.
        let each: Vec<_> = operations
            .into_iter()
            .filter_map(|operation| {
                let text = serde_json::json!({"on": {"E": [operation]}}).to_string();
                Rules::parse(&text).ok().map(|rules| (rules, text))
            })
            .collect();
        // What was larger or deeper than the limits before stays so.
        let deepest = limits.depth.max(initial.depth()).max(payloads.iter().map(Value::depth).max().unwrap_or(0));
        let largest = limits.state_bytes.max(initial.size());
        let mut state = State::new(initial);
        for payload in payloads {
            let fields = [("type", Value::Text("E".into())), ("metadata", payload.clone()), ("payload", payload)];
            let event = Event(Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).into()));
            for (rules, text) in &each {
                let before = state.value().clone();
                if rules.apply(&mut state, &event, &limits).is_err() {
                    state = State::new(before);
                    continue;
                }
                prop_assert_eq!(state.bytes(), state.value().size(), "{}", text);
                prop_assert!(state.bytes() <= largest, "{} bytes by {}", state.bytes(), text);
                prop_assert!(state.value().depth() <= deepest, "{} levels by {}", state.value().depth(), text);
                let again = Value::parse(&state.value().to_text());
                prop_assert_eq!(again.as_ref(), Ok(state.value()));
            }
        }
    }
}
