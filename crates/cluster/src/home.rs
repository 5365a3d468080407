//! What a node keeps in its first data directory: who it is, and the newest map that it knows.
//!
//! Files are written whole: beside their place, synced, renamed, directory synced. So one that is there is
//! complete, whenever the power went. Bytes are in docs/formats/node.md.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use base::DeviceId;
use base::checksum::crc32c;
use base::env::{Env, Open};
use map::Map;
use rpc::{BadCredentials, Credentials, NodeKey};
use serde::{Deserialize, Serialize};

const DIR: &str = "node";
const CREDENTIALS: &str = "credentials.pem";
const JOINING: &str = "joining";
const MAP: &str = "map";

/// A map of a thousand nodes has some 500 KiB.
const MAP_BYTES_MAX: u64 = 64 << 20;
const SECRET_BYTES_MAX: u64 = 64 << 10;
const VERSION: u8 = 1;

/// Why what a node keeps could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} {}: {source}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// It was written by another version, or is damaged.
    #[error("{}: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error(transparent)]
    Credentials(#[from] BadCredentials),
}

/// The files of a node.
#[derive(Clone)]
pub struct Home {
    env: Env,
    dir: PathBuf,
}

/// Who wants to join: kept until it has joined and its devices are made, so that one who asks again is
/// known to be the same.
pub struct Joining {
    pub key: NodeKey,
    /// The devices that it will have, in the order of its directories.
    pub devices: Vec<DeviceId>,
}

#[derive(Serialize, Deserialize)]
struct JoiningFile {
    key: String,
    devices: Vec<DeviceId>,
}

impl Home {
    /// The node whose first data directory is `dir`.
    pub fn new(env: Env, dir: &Path) -> Self {
        Self {
            env,
            dir: dir.to_owned(),
        }
    }

    /// Who this node is. `None`: nobody yet.
    pub fn credentials(&self) -> Result<Option<Credentials>, Error> {
        let path = self.secret(CREDENTIALS);
        let Some(bytes) = self.read(&path, SECRET_BYTES_MAX)? else {
            return Ok(None);
        };
        let pem = String::from_utf8(bytes).map_err(|error| damaged(&path, error))?;
        let credentials = Credentials::from_pem(&pem).map_err(|error| damaged(&path, error))?;
        Ok(Some(credentials))
    }

    pub fn keep_credentials(&self, credentials: &Credentials) -> Result<(), Error> {
        self.make_dir()?;
        self.write(&self.secret(CREDENTIALS), credentials.to_pem().as_bytes())
    }

    /// The newest map that this node knew. `None`: it never knew one.
    pub fn map(&self) -> Result<Option<Map>, Error> {
        let path = self.dir.join(MAP);
        let Some(bytes) = self.read(&path, MAP_BYTES_MAX)? else {
            return Ok(None);
        };
        let map = Map::decode(checked(&path, &bytes)?);
        map.map(Some).map_err(|error| damaged(&path, error))
    }

    pub fn keep_map(&self, map: &Map) -> Result<(), Error> {
        self.write(&self.dir.join(MAP), &with_checksum(map.encode()))
    }

    /// Who wants to join with so many devices: the same one as the last time, or a new one.
    pub fn joining(&self, devices: usize) -> Result<Joining, Error> {
        if let Some(joining) = self.is_joining()?
            && joining.devices.len() == devices
        {
            return Ok(joining);
        }
        let draw = |_| {
            let mut id = [0; 16];
            self.env.entropy.fill(&mut id);
            DeviceId(u128::from_le_bytes(id))
        };
        let joining = Joining {
            key: NodeKey::generate()?,
            devices: (0..devices).map(draw).collect(),
        };
        let file = JoiningFile {
            key: joining.key.to_pem(),
            devices: joining.devices.clone(),
        };
        let bytes = postcard::to_extend(&file, vec![VERSION]);
        let bytes = bytes.expect("texts and numbers can be written");
        self.make_dir()?;
        self.write(&self.secret(JOINING), &with_checksum(bytes))?;
        Ok(joining)
    }

    /// Who was joining when the last start was cut short.
    pub fn is_joining(&self) -> Result<Option<Joining>, Error> {
        let path = self.secret(JOINING);
        let Some(bytes) = self.read(&path, SECRET_BYTES_MAX)? else {
            return Ok(None);
        };
        let Some((&VERSION, fields)) = checked(&path, &bytes)?.split_first() else {
            return Err(damaged(&path, "of another version"));
        };
        let file: JoiningFile =
            postcard::from_bytes(fields).map_err(|error| damaged(&path, error))?;
        let key = NodeKey::from_pem(&file.key).map_err(|error| damaged(&path, error))?;
        let devices = file.devices;
        Ok(Some(Joining { key, devices }))
    }

    /// The joiner is a node with all its devices.
    pub fn has_joined(&self) -> Result<(), Error> {
        let path = self.secret(JOINING);
        match self.env.disk.remove(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("removing", &path, error)),
        }
        let dir = self.dir.join(DIR);
        let synced = self.env.disk.sync_dir(&dir);
        synced.map_err(|error| failed("syncing", &dir, error))
    }

    fn secret(&self, name: &str) -> PathBuf {
        self.dir.join(DIR).join(name)
    }

    fn make_dir(&self) -> Result<(), Error> {
        let dir = self.dir.join(DIR);
        let made = self.env.disk.create_dir(&dir);
        made.map_err(|error| failed("making", &dir, error))
    }

    fn read(&self, path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, Error> {
        let file = match self.env.disk.open(path, Open::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("opening", path, error)),
        };
        let failed = |error| failed("reading", path, error);
        let len = file.len().map_err(failed)?;
        if len > bytes_max {
            return Err(damaged(path, format!("{len} bytes, at most {bytes_max}")));
        }
        let mut bytes = vec![0; usize::try_from(len).expect("bounded above")];
        let read = file.read_at(&mut bytes, 0).map_err(failed)?;
        bytes.truncate(read);
        Ok(Some(bytes))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let disk = &*self.env.disk;
        let new = path.with_extension("new");
        let dir = path.parent().expect("a file in a directory");
        let write = || {
            let file = disk.open(&new, Open::Write)?;
            // What was left of an attempt that was cut short.
            file.truncate(0)?;
            file.write_at(&[IoSlice::new(bytes)], 0)?;
            file.sync()?;
            disk.rename(&new, path)?;
            disk.sync_dir(dir)
        };
        write().map_err(|error| failed("writing", path, error))
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> Error {
    let path = path.to_owned();
    Error::Io { what, path, source }
}

fn damaged(path: &Path, why: impl ToString) -> Error {
    Error::Damaged {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = crc32c(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

fn checked<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
    match bytes.split_last_chunk() {
        Some((bytes, checksum)) if crc32c(bytes).to_le_bytes() == *checksum => Ok(bytes),
        Some(_) | None => Err(damaged(path, "wrong checksum")),
    }
}

#[cfg(test)]
mod tests {
    use rpc::Authority;
    use testkit::SimDisk;

    use super::*;

    fn home() -> (Home, SimDisk) {
        let (env, disk, _) = testkit::env(1, 1 << 20);
        env.disk.create_dir(Path::new("/data")).unwrap();
        (Home::new(env, Path::new("/data")), disk)
    }

    fn credentials() -> Credentials {
        let authority = Authority::new(7).unwrap();
        let key = NodeKey::generate().unwrap();
        let certificate = authority.sign(base::NodeId(3), key.public()).unwrap();
        let authority = authority.certificate().to_vec();
        key.certified(certificate, authority).unwrap()
    }

    #[test]
    fn what_is_kept_survives_a_power_cut() {
        let (home, disk) = home();
        assert!(home.credentials().unwrap().is_none() && home.map().unwrap().is_none());
        let map = Map::default().with_devices([DeviceId(1)]);
        let credentials = credentials();
        home.keep_credentials(&credentials).unwrap();
        home.keep_map(&Map::default()).unwrap();
        home.keep_map(&map).unwrap();
        let joining = home.joining(2).unwrap();
        disk.power_cut(1);
        let kept = home.credentials().unwrap().unwrap();
        assert_eq!(kept.to_pem(), credentials.to_pem());
        assert_eq!(home.map().unwrap().unwrap(), map);
        let again = home.joining(2).unwrap();
        assert_eq!(again.key.public(), joining.key.public());
        assert_eq!(again.devices, joining.devices);
        // With other directories it is somebody else.
        let other = home.joining(3).unwrap();
        assert_ne!(other.key.public(), joining.key.public());
        home.has_joined().unwrap();
        home.has_joined().unwrap();
        assert!(home.is_joining().unwrap().is_none());
    }

    #[test]
    fn whatever_is_damaged_is_refused() {
        let (home, _) = home();
        home.keep_map(&Map::default()).unwrap();
        home.joining(1).unwrap();
        home.keep_credentials(&credentials()).unwrap();
        for name in ["map", "node/joining", "node/credentials.pem"] {
            let path = Path::new("/data").join(name);
            let file = home.env.disk.open(&path, Open::Write).unwrap();
            let mut byte = [0];
            file.read_at(&mut byte, 1).unwrap();
            file.write_at(&[IoSlice::new(&[byte[0] ^ 1])], 1).unwrap();
        }
        assert!(matches!(home.map(), Err(Error::Damaged { .. })));
        assert!(matches!(home.is_joining(), Err(Error::Damaged { .. })));
        assert!(matches!(home.credentials(), Err(Error::Damaged { .. })));
    }
}
