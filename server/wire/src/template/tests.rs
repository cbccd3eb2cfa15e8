use proptest::prelude::*;

use super::*;

fn values<const N: usize>(values: [(&str, &[u8]); N]) -> BTreeMap<TargetName, SecretBytes> {
    let value = |(name, value): (&str, &[u8])| {
        (name.parse().expect("a name"), SecretBytes::new(value.to_vec()).expect("a value"))
    };
    values.into_iter().map(value).collect()
}

fn render<const N: usize>(text: &str, given: [(&str, &[u8]); N]) -> Result<String, TemplateError> {
    let rendered = Template::parse(text)?.render(values(given))?;
    Ok(String::from_utf8(rendered.expose_secret().to_vec()).expect("text"))
}

fn refused(text: &str) -> (usize, String) {
    match Template::parse(text).expect_err(text) {
        TemplateError::At { line, problem } => (line, problem),
        other => panic!("{text}: {other}"),
    }
}

#[test]
fn a_whole_file_from_several_secrets() {
    let text = "# app\nurl = postgres://app:{{ secrets.password | urlencode }}@db/app\n\
                {% for zone in [\"a\", \"b\"] %}{{ zone }} = {{ secrets[\"api.key\"] }}\n{% endfor %}\
                {# a comment #}{% raw %}{{ not ours }}{% endraw %}\n";
    let rendered = render(text, [("password", b"p/w @1"), ("api.key", b"k\xc3\xa4y")]);
    assert_eq!(
        rendered.expect("rendered"),
        "# app\nurl = postgres://app:p%2Fw%20%401@db/app\na = käy\nb = käy\n{{ not ours }}\n"
    );
}

#[test]
fn its_inputs_are_what_it_names_also_where_it_is_not_taken() {
    let template =
        Template::parse("{{ secrets.a }}{% if false %}{{ secrets['b-c'] }}{% endif %}").expect("one");
    assert_eq!(template.inputs().map(TargetName::as_str).collect::<Vec<_>>(), ["a", "b-c"]);
    assert_eq!(render("all the same", []).expect("rendered"), "all the same");
}

#[test]
fn each_filter() {
    for (filter, value, filtered) in [
        ("trim", " \tvalue\r\n", "value"),
        ("tojson", "a\"b\\c\n\u{1}ä", "\"a\\\"b\\\\c\\n\\u0001ä\""),
        ("urlencode", "a-b._~/?ä ", "a-b._~%2F%3F%C3%A4%20"),
        ("b64encode", "value", "dmFsdWU="),
        ("b64decode", "dmFsdWU=", "value"),
        ("b64decode | b64decode", "ZG1Gc2RXVT0=", "value"),
        ("escape", "<a b='c' d=\"e\">&", "&lt;a b=&#39;c&#39; d=&quot;e&quot;&gt;&amp;"),
        ("indent(2)", "one\n\ntwo\n", "one\n\n  two\n"),
        ("trim | tojson", " x ", "\"x\""),
    ] {
        let rendered = render(&format!("{{{{ secrets.s | {filter} }}}}"), [("s", value.as_bytes())]);
        assert_eq!(rendered.expect(filter), filtered, "{filter}");
    }
    assert_eq!(render("{{ 'a b' | urlencode }}", []).expect("plain"), "a%20b");
    assert_eq!(render("{{ secrets.s | b64encode }}", [("s", b"\xff\0")]).expect("binary"), "/wA=");
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (text, line, problem) in [
        ("\n{{ secrets.a", 2, "end of variable block"),
        ("{% include 'a' %}", 1, "unknown statement include"),
        ("{% import 'a' as b %}", 1, "unknown statement import"),
        ("{% extends 'a' %}", 1, "unknown statement extends"),
        ("{% macro a() %}{% endmacro %}", 1, "unknown statement macro"),
        ("\n\n{{ secrets.a ~ 'x' }}", 3, "put out and filtered"),
        ("{{ secrets.db-password }}", 1, "secrets[\"a-name\"]"),
        ("{{ secrets }}", 1, "put out and filtered"),
        ("{{ secrets.a.b }}", 1, "put out and filtered"),
        ("{{ secrets.a[0:3] }}", 1, "put out and filtered"),
        ("{{ secrets[name] }}", 1, "in quotes"),
        ("{{ secrets['../a'] }}", 1, "target name"),
        ("{% if secrets.a == 'x' %}{% endif %}", 1, "put out and filtered"),
        ("{% set x = secrets.a %}", 1, "put out and filtered"),
        ("{% set secrets = 1 %}", 1, "put out and filtered"),
        ("{% for secrets in [1] %}{% endfor %}", 1, "put out and filtered"),
        ("{% with a = secrets.a %}{% endwith %}", 1, "put out and filtered"),
        ("{{ 'x' | indent(secrets.a) }}", 1, "put out and filtered"),
        ("{% set x %}{{ secrets.a }}{% endset %}", 1, "a set block"),
        ("{% filter trim %}{{ secrets.a }}{% endfilter %}", 1, "a filter block"),
        ("{% autoescape true %}{{ secrets.a }}{% endautoescape %}", 1, "autoescape"),
        ("{{ secrets.a | upper }}", 1, "no filter upper; there are b64decode"),
        ("{{ now() }}", 1, "no functions"),
        ("x\n{{ unknown }}", 2, "no such name"),
        ("x\n{{ secrets.a | indent(65) }}", 2, "0 to 64"),
        ("{{ secrets.a | indent }}", 1, "missing argument"),
    ] {
        let (found, told) = refused(text);
        assert!(found == line && told.contains(problem), "{text}: line {found}: {told}");
    }
    let error = refused(&format!("{{% {}\u{1b} %}}", "x".repeat(1000))).1;
    assert!(error.len() < 1500 && !error.contains('\u{1b}'), "{error}");
}

#[test]
fn what_would_take_too_long_or_too_deep_is_refused() {
    let nines = "{% for a in [1,2,3,4,5,6,7,8,9] %}".repeat(8);
    let many = format!("{nines}x{}", "{% endfor %}".repeat(8));
    assert!(refused(&many).1.contains("too much work"));
    for (begin, end) in
        [("{% if 1 %}", "{% endif %}"), ("{% elif 1 %}", ""), ("{% with a=1 %}", "{% endwith %}")]
    {
        let deep = format!("{{% if 1 %}}{}{}{{% endif %}}", begin.repeat(17), end.repeat(17));
        assert!(refused(&deep).1.contains("too deep"), "{begin}");
    }
    for many in ["-", "not ", "[", "(", "1 if 1 else ", "a.", "1+", "{1:"] {
        let text = format!("{{{{ {}1 }}}}", many.repeat(60_000 / many.len()));
        assert!(refused(&text).1.contains("between two braces"), "{many}");
    }
}

/// The workers' threads have 2 MiB of stack. What is just allowed takes less than a quarter of that,
/// also in a build without optimization.
#[test]
fn what_is_just_allowed_needs_little_stack() {
    let deepest = |inner: String| {
        let begin = "{% if 1 %}{% with a=1 %}{% for a in [1] %}{% if 0 %}{% elif 1 %}".repeat(3);
        let end = "{% endif %}{% endfor %}{% endwith %}{% endif %}".repeat(3);
        format!("{begin}{inner}{end}")
    };
    let expressions = ["-", "not ", "not -", "1 if 1 else ", "1**", "1+"].map(|many| {
        let tokens = many.split_whitespace().count().max(if many.len() > 1 { 2 } else { 1 });
        format!("{{{{ {}1 }}}}", many.repeat((TOKENS_ALLOWED - 3) / tokens))
    });
    let run = move || {
        for expression in expressions {
            // Whatever comes of it, the process must live.
            let _ = Template::parse(&deepest(expression));
        }
        Template::parse(&deepest("x".to_owned())).expect("the depth is allowed");
    };
    let thread = std::thread::Builder::new().stack_size(512 << 10).spawn(run).expect("a thread");
    thread.join().expect("it did not overflow");
}

const TOKENS_ALLOWED: usize = 128;

#[test]
fn sizes_have_limits() {
    assert_eq!(Template::parse("").expect_err("empty"), TemplateError::Size);
    assert!(Template::parse(&"x".repeat(TEMPLATE_MAX_BYTES)).is_ok());
    assert!(Template::parse(&"\n".repeat(TEMPLATE_MAX_BYTES)).is_ok());
    assert_eq!(Template::parse(&"x".repeat(TEMPLATE_MAX_BYTES + 1)).expect_err("more"), TemplateError::Size);
    let large = vec![b'x'; SECRET_MAX];
    assert_eq!(render("{{ secrets.a }}", [("a", &large)]).expect("all of it").len(), SECRET_MAX);
    assert_eq!(render("{{ secrets.a }}x", [("a", &large)]), Err(TemplateError::TooLarge));
    let filtered = render("{{ secrets.a | b64encode }}", [("a", &large)]).expect_err("larger");
    assert!(filtered.to_string().contains("a filter makes more than 1 MiB"), "{filtered}");
    assert_eq!(render("{{ secrets.a | trim }}", [("a", b" ")]), Err(TemplateError::Empty));
    assert_eq!(Template::parse("{% if 0 %}x{% endif %}"), Err(TemplateError::Empty));
}

const SECRET_MAX: usize = crate::SECRET_MAX_BYTES;

#[test]
fn no_error_shows_anything_of_a_value() {
    let canary = b"canary\xff";
    for text in [
        "{{ secrets.a }}",
        "{{ secrets.a | b64decode }}",
        "{{ secrets.a | tojson }}",
        "{{ secrets.a | trim }}",
        "{{ secrets.a | escape }}",
        "{{ secrets.a | indent(2) }}",
    ] {
        let error = render(text, [("a", canary)]).expect_err(text);
        let shown = format!("{error} {error:?} {error:#?}");
        assert!(shown.contains("the value of a is not") && !shown.contains("canary"), "{shown}");
    }
    let missing = Template::parse("{{ secrets.a }}").expect("one").render(BTreeMap::new());
    assert!(missing.is_err(), "what is not given is not rendered as nothing");
}

#[test]
fn the_engine_learns_nothing_of_a_value() {
    let bytes = zeroize::Zeroizing::new(b"canary".to_vec());
    let hidden = render::Hidden { of: None, bytes };
    assert_eq!(format!("{hidden:?}"), "REDACTED");
    let hidden = minijinja::Value::from_object(hidden);
    assert_eq!(format!("{hidden}|{hidden:?}|{hidden:#?}"), "||");
    assert_eq!((hidden.as_str(), hidden.as_bytes(), hidden.len()), (None, None, None));
}

#[test]
fn a_version_follows_the_text_and_each_input() {
    let id = |number| VersionId::from_u64(number).expect("an id");
    let (a, b): (TargetName, TargetName) = ("a".parse().expect("a name"), "b".parse().expect("a name"));
    let one = Template::parse("{{ secrets.a }}{{ secrets.b }}").expect("one");
    let other = Template::parse("{{ secrets.a }} {{ secrets.b }}").expect("another");
    let version = one.version([(&a, id(1)), (&b, id(2))]);
    assert_eq!(version, one.version([(&b, id(2)), (&a, id(1))]), "whatever the order");
    assert_ne!(version, other.version([(&a, id(1)), (&b, id(2))]));
    assert_ne!(version, one.version([(&a, id(2)), (&b, id(1))]));
    assert_ne!(version, one.version([(&a, id(1)), (&b, id(3))]));
    // Should it change, programs that render the same would not take each other's renderings over.
    assert_eq!(version.to_string(), "6645afd7e07d580b");
}

proptest! {
    #[test]
    fn no_text_panics(text in "(\\{\\{|\\}\\}|\\{%|%\\}|secrets|\\.a|\\[|\\]|'|\"|\\||trim|if|for|in|end|else|set| |-|[0-9]|\\PC){0,60}") {
        let _ = Template::parse(&text);
    }

    #[test]
    fn what_is_put_out_is_the_value(value in "\\PC{1,100}") {
        prop_assert_eq!(&render("{{ secrets.a }}", [("a", value.as_bytes())]).expect("rendered"), &value);
        let encoded = render("{{ secrets.a | tojson }}", [("a", value.as_bytes())]).expect("rendered");
        prop_assert_eq!(serde_json::from_str::<String>(&encoded).expect("JSON"), value);
    }
}
