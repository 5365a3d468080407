use super::*;

fn parse(line: &str) -> Result<Top, clap::Error> {
    let words = std::iter::once("martlet").chain(line.split_whitespace());
    Cli::try_parse_from(words).map(|cli| cli.command)
}

#[track_caller]
fn refused(line: &str, expected: &str) {
    let error = parse(line).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory as _;
    Cli::command().debug_assert();
}

#[test]
fn every_setting_is_a_flag() {
    let Top::Server(args) =
        parse("server --data /a --data /b --listen 127.0.0.1:1 --head-timeout 5s --config m.toml")
            .unwrap()
    else {
        panic!("another command");
    };
    assert_eq!(args.config, Some("m.toml".into()));
    assert_eq!(args.flags["data"], ["/a", "/b"]);
    assert_eq!(args.flags["listen"], ["127.0.0.1:1"]);
    assert_eq!(args.flags["head_timeout"], ["5s"]);
    assert_eq!(args.flags.len(), 3);
}

#[test]
fn a_mistyped_flag_gets_a_suggestion() {
    refused(
        "server --lisen 127.0.0.1:1",
        "a similar argument exists: '--listen'",
    );
    refused("serve", "'server'");
}

#[test]
fn a_user_has_an_account_and_a_name() {
    let Top::User(args) =
        parse("user add photos:anna --role member --group a --group b --data /d").unwrap()
    else {
        panic!("another command");
    };
    let UserCommand::Add {
        user,
        role,
        groups,
        password_stdin,
        server,
    } = args.command
    else {
        panic!("another command");
    };
    assert_eq!(
        (user.account.as_str(), user.name.as_str()),
        ("photos", "anna")
    );
    assert_eq!(
        (role, groups),
        (RoleArg::Member, vec!["a".to_owned(), "b".to_owned()])
    );
    assert!(!password_stdin);
    assert_eq!(server.data, Some("/d".into()));
    for user in ["photos", "photos:", ":anna", ""] {
        refused(&format!("user add {user}"), "");
    }
    refused("user add a:b:c", "with one colon");
}

#[test]
fn a_password_is_never_an_argument() {
    refused(
        "user add a:b --password x",
        "unexpected argument '--password'",
    );
    refused(
        "status --server http://h --password x",
        "unexpected argument '--password'",
    );
}

#[test]
fn one_server_at_a_time() {
    refused("status --data /d --server http://h", "cannot be used with");
}

#[test]
fn a_check_needs_directories() {
    refused("check", "required");
}
