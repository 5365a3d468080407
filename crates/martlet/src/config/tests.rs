use proptest::prelude::*;

use super::*;

fn sources(file: &str, environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Sources {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut by_key: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for (name, value) in flags {
        by_key.entry(name).or_default().push((*value).to_owned());
    }
    Sources {
        file: Some(("m.toml".into(), file.to_owned())),
        environment: environment.iter().map(own).collect(),
        flags: by_key,
    }
}

#[track_caller]
fn refused(file: &str, environment: &[(&str, &str)], flags: &[(&'static str, &str)], error: &str) {
    let found = Config::resolve(&sources(file, environment, flags));
    assert_eq!(found.unwrap_err().to_string(), error);
}

#[test]
fn every_key_has_a_default_within_its_bounds() {
    let config = Config::resolve(&Sources::default()).unwrap();
    assert_eq!(config.data, [PathBuf::from("./martlet-data")]);
    assert_eq!(config.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(config.admin_listen, Some("127.0.0.1:8081".parse().unwrap()));
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = "shards = 2\nlisten = '127.0.0.1:1'\nbody_timeout = '1s'\nadmin_listen = 'off'";
    let environment = [
        ("MARTLET_LISTEN", "127.0.0.1:2"),
        ("MARTLET_BODY_TIMEOUT", "2s"),
    ];
    let config = Config::resolve(&sources(file, &environment, &[("body_timeout", "3s")])).unwrap();
    assert_eq!(config.shards, 2);
    assert_eq!(config.listen, "127.0.0.1:2".parse().unwrap());
    assert_eq!(config.body_timeout, Duration::from_secs(3));
    assert_eq!(config.admin_listen, None);
}

#[test]
fn directories_are_replaced_not_mixed() {
    let file = "data = ['/a', '/b']";
    let config = Config::resolve(&sources(file, &[("MARTLET_DATA", "/c:/d")], &[])).unwrap();
    assert_eq!(config.data, [PathBuf::from("/c"), PathBuf::from("/d")]);
    let flags = [("data", "/e:f"), ("data", "/g")];
    let config = Config::resolve(&sources(file, &[("MARTLET_DATA", "/c")], &flags)).unwrap();
    assert_eq!(config.data, [PathBuf::from("/e:f"), PathBuf::from("/g")]);
}

#[test]
fn unknown_keys_are_refused_with_a_suggestion() {
    refused(
        "lisen = '127.0.0.1:1'",
        &[],
        &[],
        "m.toml: there is no such key \"lisen\"; did you mean listen?",
    );
    refused(
        "colour = 'red'",
        &[],
        &[],
        "m.toml: there is no such key \"colour\"; `martlet server --help` lists all settings",
    );
    refused(
        "",
        &[("MARTLET_LISEN", "127.0.0.1:1")],
        &[],
        "MARTLET_LISEN: there is no such setting; did you mean MARTLET_LISTEN?",
    );
}

#[test]
fn what_others_put_into_the_environment_is_left_alone() {
    let environment = [
        ("MARTLET_SERVICE_HOST", "10.0.0.1"),
        ("MARTLET_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("MARTLET_PASSWORD", "x"),
        ("LISTEN", "nonsense"),
    ];
    let config = Config::resolve(&sources("", &environment, &[])).unwrap();
    assert_eq!(config, Config::resolve(&Sources::default()).unwrap());
}

#[test]
fn a_bad_value_is_refused_with_its_place_and_its_bounds() {
    refused(
        "shards = 0",
        &[],
        &[],
        "m.toml: shards: 0 is out of bounds: 1 to 1024",
    );
    refused(
        "shards = true",
        &[],
        &[],
        "m.toml: shards: is a boolean, but must be 1 to 1024",
    );
    refused(
        "",
        &[("MARTLET_LOG_FORMAT", "xml")],
        &[],
        "MARTLET_LOG_FORMAT: \"xml\" is none of auto, human, json",
    );
    refused(
        "",
        &[],
        &[("head_timeout", "1d")],
        "--head-timeout: 1d is out of bounds: 1s to 1h",
    );
}

#[test]
fn a_file_that_is_not_toml_says_where() {
    let error = Config::resolve(&sources("listen = ", &[], &[])).unwrap_err();
    let error = error.to_string();
    assert!(error.starts_with("m.toml: is not TOML: "), "{error}");
    assert!(error.contains("line 1"), "{error}");
}

proptest! {
    #[test]
    fn any_file_is_settings_or_an_error(file in ".{0,200}") {
        let _ = Config::resolve(&sources(&file, &[], &[]));
    }

    /// Wherever it comes from, a text is the same setting or the same refusal.
    #[test]
    fn any_text_of_any_key_is_a_setting_or_refused(
        at: prop::sample::Index,
        text in prop_oneof!["[-+0-9]{1,25}[kKMGTi]{0,2}[Bsmhd]{0,2}", "[0-9.:\\[\\]a-f]{1,20}", "\\PC{1,20}"],
    ) {
        let key = &KEYS[at.index(KEYS.len())];
        let file = format!("{} = {}", key.name, toml::Value::String(text.clone()));
        let by_file = Config::resolve(&sources(&file, &[], &[]));
        let by_variable = Config::resolve(&sources("", &[(&key.variable(), &text)], &[]));
        let by_flag = Config::resolve(&sources("", &[], &[(key.name, &text)]));
        // Directories are separated by colons in a variable only.
        if key.name != "data" {
            prop_assert_eq!(by_file.is_ok(), by_variable.is_ok(), "{} = {:?}", key.name, &text);
            if let (Ok(file), Ok(variable)) = (&by_file, &by_variable) {
                prop_assert_eq!(file, variable);
            }
        }
        if let (Ok(file), Ok(flag)) = (by_file, by_flag) {
            prop_assert_eq!(file, flag);
        }
    }

    /// TOML that means nothing to us.
    #[test]
    fn any_value_of_any_key_is_a_setting_or_refused(
        at: prop::sample::Index,
        value in "[-+0-9eE_xobinf.,:TZ'\"\\[\\]{}= truefalse]{0,30}",
    ) {
        let key = &KEYS[at.index(KEYS.len())];
        let _ = Config::resolve(&sources(&format!("{} = {value}", key.name), &[], &[]));
    }
}
