//! What the server says when it has started: where it is, and the first time what to type next.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::client::DATA_DEFAULT;
use crate::credentials::Password;

/// What a newcomer needs to know.
pub(super) struct Greeting<'a> {
    pub(super) listen: SocketAddr,
    pub(super) admin_listen: Option<SocketAddr>,
    pub(super) data: &'a [PathBuf],
    /// The administrator that was made just now.
    pub(super) first: Option<First<'a>>,
}

pub(super) struct First<'a> {
    pub(super) user: &'a str,
    pub(super) password: &'a Password,
    pub(super) file: &'a Path,
}

impl Greeting<'_> {
    pub(super) fn text(&self) -> String {
        let url = format!("http://{}", reachable(self.listen));
        let data: Vec<_> = self
            .data
            .iter()
            .map(|dir| dir.display().to_string())
            .collect();
        let admin = match self.admin_listen {
            Some(address) => format!("http://{}", reachable(address)),
            None => "off (the admin socket works)".to_owned(),
        };
        let mut text = format!(
            "\nMartlet {} is running.\n\n  \
               Swift API   {url}/auth/v1.0\n  \
               admin       {admin}\n  \
               data        {}\n",
            env!("CARGO_PKG_VERSION"),
            data.join(", ")
        );
        if let Some(first) = &self.first {
            text.push_str(&first.text(&url));
            text.push_str(&format!(
                "\nMore users: martlet user add{data} ACCOUNT:USER. How it is doing: martlet \
                 status{data}.\n",
                data = self.data_flag()
            ));
        }
        text.push_str("\nCtrl-C stops it; what was acknowledged is safe.\n\n");
        text
    }
}

impl Greeting<'_> {
    /// What commands need to find this server.
    fn data_flag(&self) -> String {
        match self.data.first() {
            Some(first) if first != Path::new(DATA_DEFAULT) => {
                format!(" --data {}", first.display())
            }
            _ => String::new(),
        }
    }
}

impl First<'_> {
    fn text(&self, url: &str) -> String {
        let (user, password) = (self.user, self.password.reveal());
        let account = user.split(':').next().unwrap_or_default();
        format!(
            "\nThe administrator, shown this once and kept in {file}:\n\n  \
               user        {user}\n  \
               password    {password}\n\
             \n\
             Try it with curl:\n\
             \n  \
               TOKEN=$(curl -si {url}/auth/v1.0 -H 'X-Auth-User: {user}' \\\n    \
                 -H 'X-Auth-Key: {password}' | tr -d '\\r' | awk 'tolower($1)==\"x-auth-token:\"{{print $2}}')\n  \
               curl -X PUT -H \"X-Auth-Token: $TOKEN\" {url}/v1/AUTH_{account}/first\n  \
               echo hello | curl -T - -H \"X-Auth-Token: $TOKEN\" {url}/v1/AUTH_{account}/first/hello.txt\n  \
               curl -H \"X-Auth-Token: $TOKEN\" {url}/v1/AUTH_{account}/first/hello.txt\n\
             \n\
             or swift (pip install python-swiftclient):\n\
             \n  \
               export ST_AUTH={url}/auth/v1.0 ST_USER={user} ST_KEY={password}\n  \
               echo hello > hello.txt && swift upload first hello.txt\n  \
               swift list first\n\
             \n\
             or rclone:\n\
             \n  \
               rclone config create martlet swift auth={url}/auth/v1.0 user={user} key={password}\n  \
               echo hello | rclone rcat martlet:first/hello.txt\n  \
               rclone ls martlet:first\n",
            file = self.file.display()
        )
    }
}

/// An address that a client on this machine can connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `BLESS=1` rewrites the golden file.
    #[track_caller]
    fn golden(name: &str, found: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(name);
        if std::env::var_os("BLESS").is_some() {
            #[expect(
                clippy::disallowed_methods,
                reason = "a test may write its golden file"
            )]
            std::fs::write(&path, found).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap();
        assert_eq!(found, expected);
    }

    fn data() -> Vec<PathBuf> {
        vec!["./martlet-data".into()]
    }

    #[test]
    fn the_first_start_says_what_to_type_next() {
        let password = Password::for_tests("0123456789abcdefghjkmnpq");
        let data = data();
        let greeting = Greeting {
            listen: "127.0.0.1:8080".parse().unwrap(),
            admin_listen: Some("127.0.0.1:8081".parse().unwrap()),
            data: &data,
            first: Some(First {
                user: "main:admin",
                password: &password,
                file: Path::new("./martlet-data/admin-credentials"),
            }),
        };
        golden("first-start.txt", &greeting.text());
    }

    #[test]
    fn a_later_start_is_short_and_names_addresses_that_can_be_reached() {
        let data = [data(), vec!["/disk2".into()]].concat();
        let greeting = Greeting {
            listen: "0.0.0.0:80".parse().unwrap(),
            admin_listen: None,
            data: &data,
            first: None,
        };
        golden("later-start.txt", &greeting.text());
    }
}
