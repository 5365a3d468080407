//! What was measured on: without it, figures mean nothing.

use std::fs;
use std::process::Command;

/// Facts by name, in the order in which they are shown.
pub(crate) fn facts() -> Vec<(&'static str, String)> {
    vec![
        ("processor", field("/proc/cpuinfo", "model name")),
        (
            "cores",
            std::thread::available_parallelism().map_or_else(|_| "?".into(), |n| n.to_string()),
        ),
        ("memory", field("/proc/meminfo", "MemTotal")),
        ("kernel", output("uname", &["-sr"])),
        (
            "system",
            field_of("/etc/os-release", "PRETTY_NAME", '=').replace('"', ""),
        ),
        ("load before", read("/proc/loadavg")),
        (
            "commit",
            output("git", &["describe", "--always", "--dirty"]),
        ),
        ("rustc", output("rustc", &["--version"])),
        ("date", output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
    ]
}

fn field(path: &str, name: &str) -> String {
    field_of(path, name, ':')
}

fn field_of(path: &str, name: &str, separator: char) -> String {
    let text = read(path);
    let mut values = text.lines().filter_map(|line| {
        let (key, value) = line.split_once(separator)?;
        (key.trim() == name).then(|| value.trim().to_owned())
    });
    values.next().unwrap_or_else(|| "?".to_owned())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
}

fn output(program: &str, arguments: &[&str]) -> String {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "?".to_owned(),
    }
}
